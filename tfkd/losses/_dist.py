"""DIST: correlations of probabilities within an example and within a class (Huang et al. 2022)."""

import tensorflow as tf

from tfkd.ops.checks import Scalar, check_rank, check_same_shape, check_temperature
from tfkd.ops.norms import as_float32, unit

_EPSILON = 1e-8


def dist(
  teacher_logits: tf.Tensor,
  student_logits: tf.Tensor,
  temperature: Scalar = 1.0,
  *,
  inter_weight: float = 1.0,
  intra_weight: float = 1.0,
) -> tf.Tensor:
  """Computes one minus the correlation of probabilities, over classes and over the examples of a batch.

    loss = T^2 (inter_weight (1 - mean_b r(p_b, q_b)) + intra_weight (1 - mean_c r(p_.c, q_.c)))
    r(a, b): Pearson's correlation coefficient

  Source: Huang et al. 2022, arXiv:2205.10536, eq. 6-10. T^2 as in the authors' code.

  Args:
    teacher_logits: float [batch, classes], before softmax.
    student_logits: float [batch, classes], before softmax.
    temperature: positive number, dimensionless.
    inter_weight: weight of the correlation over classes.
    intra_weight: weight of the correlation over examples.

  Returns:
    float32 scalar, since it compares the examples of a batch with each other; dimensionless, in
    [0, 2 T^2 (inter_weight + intra_weight)]; 0 when the probabilities agree and vary.

  Raises:
    ValueError: temperature is not positive and finite, shapes differ, or logits are not rank 2.
  """
  check_temperature(temperature)
  teacher, student = as_float32(teacher_logits), as_float32(student_logits)
  check_rank(student, 2, "student logits")
  check_same_shape(teacher, student, "teacher logits", "student logits")
  p, q = tf.nn.softmax(teacher / temperature), tf.nn.softmax(student / temperature)
  inter = 1.0 - tf.reduce_mean(_correlation(p, q, axis=1))
  intra = 1.0 - tf.reduce_mean(_correlation(p, q, axis=0))
  return temperature**2 * (inter_weight * inter + intra_weight * intra)


def _correlation(p, q, axis):
  p, q = (unit(x - tf.reduce_mean(x, axis, keepdims=True), axis, _EPSILON) for x in (p, q))
  return tf.reduce_sum(p * q, axis)
