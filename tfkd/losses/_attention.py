"""Attention transfer: spatial maps of the activations (Zagoruyko, Komodakis 2017)."""

import tensorflow as tf

from tfkd.ops.checks import check_same_positions
from tfkd.ops.norms import as_float32, positions_in_rows, rescaled, square_root, unit


def attention_transfer(
  teacher_feature: tf.Tensor, student_feature: tf.Tensor, *, power: float = 2, form: str = "code"
) -> tf.Tensor:
  """Computes the mean squared difference between normalized attention maps over positions.

    a(f) = vec(mean_c |f|^power) / ||vec(mean_c |f|^power)||_2
    loss = mean_positions (a(teacher) - a(student))^2,  or in the paper's form  ||a(teacher) - a(student)||_2

  Source: Zagoruyko, Komodakis 2017, arXiv:1612.03928, eq. 2, and the authors' released code, which takes the mean of
  squares over positions in place of the norm.

  Args:
    teacher_feature: float [batch, ..., channels_t], a sequence, a map, or with more axes of positions.
    student_feature: float [batch, ..., channels_s]; channels may differ, positions may not.
    power: positive number; larger values emphasize the strongest activations.
    form: "code" or "paper".

  Returns:
    float32 [batch], dimensionless, in [0, 2 / positions], for the paper's form in [0, sqrt 2]; 0 when the maps
    agree, whatever their scale.

  Raises:
    ValueError: positions differ, an input has none, or form is unknown.

  >>> x = tf.ones([2, 4, 4, 3])
  >>> attention_transfer(x, 5 * x).numpy().tolist()
  [0.0, 0.0]
  """
  if form not in ("code", "paper"):
    raise ValueError(f'form must be "code" or "paper"; got {form!r}.')
  teacher, student = as_float32(teacher_feature), as_float32(student_feature)
  check_same_positions(teacher, student)
  difference = tf.math.squared_difference(_attention(teacher, power), _attention(student, power))
  if form == "paper":
    return square_root(tf.reduce_sum(difference, axis=1))
  return tf.reduce_mean(difference, axis=1)


def _attention(feature, power):
  feature = positions_in_rows(feature)
  if power > 2:  # Squares of features fit into float32; higher powers may overflow.
    feature = rescaled(feature, [1, 2])
  # Scaling the map is cheaper than scaling the feature, which has more channels.
  return unit(rescaled(tf.reduce_mean(tf.abs(feature) ** power, axis=2), 1), 1)
