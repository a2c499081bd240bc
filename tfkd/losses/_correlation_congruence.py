"""Correlation congruence: kernel matrices of a batch (Peng et al. 2019)."""

import math

import tensorflow as tf

from tfkd.ops.checks import check_rank, check_same_batch
from tfkd.ops.norms import as_float32, rescaled, unit


def correlation_congruence(
  teacher_embedding: tf.Tensor, student_embedding: tf.Tensor, *, gamma: float = 0.4, order: int = 2
) -> tf.Tensor:
  """Computes the mean squared difference between the kernel matrices of teacher and student embeddings.

    k_ij = exp(-2 gamma) sum_{p=0..order} (2 gamma)^p / p! (x_i . x_j)^p,  x scaled to unit length
    loss = mean_ij (k_ij(teacher) - k_ij(student))^2

  The sum is the Taylor series of the Gaussian kernel exp(-gamma ||x_i - x_j||^2).
  Source: Peng et al. 2019, arXiv:1904.01802, with the generalized kernel.

  Args:
    teacher_embedding: float [batch, d_t].
    student_embedding: float [batch, d_s]; dimensions may differ.
    gamma: positive number; the kernel has width 1 / sqrt(2 gamma).
    order: int >= 1, the highest power.

  Returns:
    float32 scalar, since it compares the examples of a batch with each other; in [0, 1]; 0 when the cosines agree.

  Raises:
    ValueError: an input is not rank 2, the batches differ, or gamma or order is out of range.
  """
  if not gamma > 0:
    raise ValueError(f"gamma must be positive; got {gamma}.")
  if order < 1:
    raise ValueError(f"order must be at least 1; got {order}.")
  teacher, student = as_float32(teacher_embedding), as_float32(student_embedding)
  check_rank(teacher, 2, "teacher embedding")
  check_rank(student, 2, "student embedding")
  check_same_batch(teacher, student)
  return tf.reduce_mean(tf.math.squared_difference(_kernel(teacher, gamma, order), _kernel(student, gamma, order)))


def _kernel(embedding, gamma, order):
  rows = unit(rescaled(embedding, 1), 1)
  cosines = tf.matmul(rows, rows, transpose_b=True)
  # Power 0 is added as 1.0, because its gradient at a cosine of 0 would be NaN.
  powers = [(2 * gamma) ** p / math.factorial(p) * cosines**p for p in range(1, order + 1)]
  return math.exp(-2 * gamma) * (1.0 + tf.add_n(powers))
