"""Similarity-preserving distillation: similarities between the examples of a batch (Tung, Mori 2019)."""

import tensorflow as tf

from tfkd.ops.checks import check_same_batch
from tfkd.ops.norms import as_float32, flat, rescaled, unit


def similarity_preserving(teacher_feature: tf.Tensor, student_feature: tf.Tensor) -> tf.Tensor:
  """Computes the squared distance between the row-normalized similarity matrices of teacher and student.

    G(f) = rows of F F^T scaled to unit length, F = [batch, elements]
    loss = ||G(teacher) - G(student)||_F^2 / batch^2

  Source: Tung, Mori 2019, arXiv:1907.09682, eq. 2-4.

  Args:
    teacher_feature: float [batch, ...].
    student_feature: float [batch, ...]; only the batch size must match.

  Returns:
    float32 scalar, since it compares the examples of a batch with each other; in [0, 4 / batch]; 0 when the matrices
    agree, independently of scale, permutation and rotation of the features.

  Raises:
    ValueError: the batches differ.
  """
  teacher, student = as_float32(teacher_feature), as_float32(student_feature)
  check_same_batch(teacher, student)
  difference = _similarities(teacher) - _similarities(student)
  batch = tf.cast(tf.shape(difference)[0], tf.float32)
  return tf.reduce_sum(difference**2) / batch**2


def _similarities(feature):
  rows = flat(feature)
  return unit(rescaled(tf.matmul(rows, rows, transpose_b=True)), 1)
