"""Multi-level logit distillation: instance, batch and class at several temperatures (Jin, Wang, Lin 2023)."""

from collections.abc import Sequence

import tensorflow as tf

from tfkd.losses._soft_targets import soft_target_kl
from tfkd.losses._standardized import standardize_logits
from tfkd.ops.checks import check_rank, check_same_shape
from tfkd.ops.norms import as_float32


def multi_level(
  teacher_logits: tf.Tensor,
  student_logits: tf.Tensor,
  temperatures: Sequence[float] = (2.0, 3.0, 4.0, 5.0, 6.0),
  *,
  standardize: bool = False,
) -> tf.Tensor:
  """Compares predictions, similarities between predictions, and similarities between classes.

    loss = sum_T  T^2 mean_b KL(p_b || q_b) + ||P P^T - Q Q^T||_F^2 / batch + ||P^T P - Q^T Q||_F^2 / classes
    P, Q [batch, classes] the softened probabilities of teacher and student

  Source: Jin, Wang, Lin 2023, "Multi-level Logit Distillation", CVPR. The default temperatures are those of the
  authors' code. Its confidence thresholds and second, strongly augmented view are left to the caller.

  Args:
    teacher_logits: float [batch, classes], before softmax.
    student_logits: float [batch, classes], before softmax.
    temperatures: positive numbers, dimensionless; the terms are summed.
    standardize: whether to standardize the logits in the divergence term. The two matrix terms use the logits as
      given, as in the code of Sun et al. 2024, arXiv:2403.01427.

  Returns:
    float32 scalar, since it compares the examples of a batch with each other; >= 0; 0 when the logits agree up to a
    constant of each example.

  Raises:
    ValueError: a temperature is not positive and finite, `temperatures` is empty, or the shapes differ.
  """
  if not temperatures:
    raise ValueError("temperatures must hold at least one number; got none.")
  teacher, student = as_float32(teacher_logits), as_float32(student_logits)
  check_rank(student, 2, "student logits")
  check_same_shape(teacher, student, "teacher logits", "student logits")
  first, second = (standardize_logits(teacher), standardize_logits(student)) if standardize else (teacher, student)
  return tf.add_n([_divergence(first, second, t) + _matrices(teacher, student, t) for t in temperatures])


def _divergence(teacher, student, temperature):
  return temperature**2 * tf.reduce_mean(soft_target_kl(teacher, student, temperature))


def _matrices(teacher, student, temperature):
  """Squared distances between the predictions' similarities, and between the classes'."""
  p, q = tf.nn.softmax(teacher / temperature), tf.nn.softmax(student / temperature)
  batch = tf.matmul(p, p, transpose_b=True) - tf.matmul(q, q, transpose_b=True)
  classes = tf.matmul(p, p, transpose_a=True) - tf.matmul(q, q, transpose_a=True)
  return sum(
    tf.math.divide_no_nan(tf.reduce_sum(matrix**2), tf.cast(tf.shape(matrix)[0], tf.float32))
    for matrix in (batch, classes)
  )
