"""Probabilistic knowledge transfer: a distribution over the neighbours of each example (Passalis, Tefas 2018)."""

import tensorflow as tf

from tfkd.ops.checks import check_rank, check_same_batch
from tfkd.ops.norms import as_float32, unit

_EPSILON = 1e-7


def probabilistic_transfer(teacher_embedding: tf.Tensor, student_embedding: tf.Tensor) -> tf.Tensor:
  """Computes the divergence between the neighbour probabilities of a batch's examples.

    k_ij = (cos(x_i, x_j) + 1) / 2,   p_ij = k_ij / sum_k k_ik,   loss = mean_ij p_ij(t) log(p_ij(t) / p_ij(s))

  Source: Passalis, Tefas 2018, arXiv:1803.10837, eq. 4-8. Differs: every example is its own neighbour and the
  mean is over all pairs, as in the authors' code.

  Args:
    teacher_embedding: float [batch, d_t].
    student_embedding: float [batch, d_s]; dimensions may differ.

  Returns:
    float32 scalar, in nats, >= 0 up to rounding; 0 when the cosines agree, independently of scale and rotation.

  Raises:
    ValueError: an input is not rank 2, or the batches differ.
  """
  teacher, student = as_float32(teacher_embedding), as_float32(student_embedding)
  check_rank(teacher, 2, "teacher embedding")
  check_rank(student, 2, "student embedding")
  check_same_batch(teacher, student)
  p, q = _neighbours(teacher), _neighbours(student)
  return tf.reduce_mean(p * (tf.math.log(p + _EPSILON) - tf.math.log(q + _EPSILON)))


def _neighbours(embedding):
  rows = unit(embedding, 1)
  similarities = (tf.matmul(rows, rows, transpose_b=True) + 1.0) / 2.0
  return similarities / tf.reduce_sum(similarities, axis=1, keepdims=True)
