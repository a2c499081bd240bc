"""Factor transfer: compressed teacher features, imitated by the student (Kim, Park, Kwak 2018)."""

import tensorflow as tf

from tfkd.ops.checks import check_same_shape
from tfkd.ops.norms import as_float32, flat, rescaled, unit


def factor_transfer(teacher_factor: tf.Tensor, student_factor: tf.Tensor) -> tf.Tensor:
  """Computes the mean absolute difference between two factors scaled to unit length.

    loss = mean |f(teacher) / ||f(teacher)||_2 - f(student) / ||f(student)||_2|

  Source: Kim, Park, Kwak 2018, arXiv:1802.04977, with p = 1; mean over elements as in the authors' code.

  Args:
    teacher_factor: float [batch, ...], output of the paraphraser for the teacher's feature.
    student_factor: float, the same shape, output of the translator for the student's
      feature.

  Returns:
    float32 [batch], dimensionless, in [0, 2 / sqrt(elements)]; 0 when the factors agree up to a positive scale.

  Raises:
    ValueError: the shapes differ.
  """
  teacher, student = as_float32(teacher_factor), as_float32(student_factor)
  check_same_shape(teacher, student, "teacher factor", "student factor")
  difference = tf.abs(_direction(teacher) - _direction(student))
  return tf.reduce_mean(difference, axis=1)


def _direction(factor):
  return unit(rescaled(flat(factor), 1), 1)
