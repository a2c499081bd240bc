"""Inter-channel correlation (Liu et al. 2021)."""

import tensorflow as tf

from tfkd.ops.checks import check_has_positions, check_same_shape
from tfkd.ops.norms import as_float32, positions_in_rows, rescaled, unit


def inter_channel_correlation(teacher_feature: tf.Tensor, student_feature: tf.Tensor) -> tf.Tensor:
  """Computes the squared distance between the row-normalized channel correlations of two features.

    G(f) = rows of F^T F scaled to unit length, F = [positions, channels],  loss = ||G(t) - G(s)||_F^2 / channels

  Source: Liu et al. 2021, arXiv:2202.03680. As in the authors' code, rows are normalized and the squared norm is
  divided by the number of channels, not by its square.

  Args:
    teacher_feature: float [batch, ..., channels], a sequence, a map, or with more axes of positions.
    student_feature: float [batch, ..., channels]; only batch and channels must match.

  Returns:
    float32 [batch], dimensionless, in [0, 4]; 0 when the correlations agree, independently of the features' scale.

  Raises:
    ValueError: an input has no positions, or the channels differ.
  """
  teacher, student = as_float32(teacher_feature), as_float32(student_feature)
  check_has_positions(teacher, "teacher feature")
  check_has_positions(student, "student feature")
  difference = _correlations(teacher), _correlations(student)
  check_same_shape(*difference, "the teacher's channel correlations", "the student's")
  return tf.reduce_mean(tf.reduce_sum(tf.math.squared_difference(*difference), axis=2), axis=1)


def _correlations(feature):
  feature = rescaled(positions_in_rows(feature), [1, 2])
  return unit(tf.matmul(feature, feature, transpose_a=True), 2)
