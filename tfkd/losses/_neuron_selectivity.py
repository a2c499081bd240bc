"""Neuron selectivity transfer: the distribution of channel activations (Huang, Wang 2017)."""

import tensorflow as tf

from tfkd.ops.checks import check_same_positions
from tfkd.ops.norms import as_float32, positions_in_rows, rescaled, unit


def neuron_selectivity(teacher_feature: tf.Tensor, student_feature: tf.Tensor) -> tf.Tensor:
  """Computes the squared maximum mean discrepancy between the channels of two features; kernel k(x, y) = (x . y)^2.

    f_c = channel c over all positions, scaled to unit length
    loss = mean_cc' k(t_c, t_c') + mean_cc' k(s_c, s_c') - 2 mean_cc' k(t_c, s_c')

  Source: Huang, Wang 2017, arXiv:1707.01219, the polynomial kernel with d = 2 and c = 0.

  Args:
    teacher_feature: float [batch, ..., channels_t], a sequence, a map, or with more axes of positions.
    student_feature: float [batch, ..., channels_s]; channels may differ, positions may not.

  Returns:
    float32 [batch], dimensionless, in [0, 2] up to rounding; 0 when the sets of channels agree, in any order and sign.

  Raises:
    ValueError: positions differ, or an input has none.
  """
  teacher, student = as_float32(teacher_feature), as_float32(student_feature)
  check_same_positions(teacher, student)
  t, s = _channels(teacher), _channels(student)
  return _mean_kernel(t, t) + _mean_kernel(s, s) - 2.0 * _mean_kernel(t, s)


def _channels(feature):
  """[batch, positions, channels], each channel scaled to unit length over the positions."""
  return unit(rescaled(positions_in_rows(feature), 1), 1)


def _mean_kernel(a, b):
  return tf.reduce_mean(tf.matmul(a, b, transpose_a=True) ** 2, axis=[1, 2])
