"""Decoupled knowledge distillation: separate terms for target and other classes (Zhao et al. 2022)."""

import tensorflow as tf

from tfkd.losses._soft_targets import kl_from_log_probabilities, soft_target_kl
from tfkd.ops.checks import Scalar, check_logits_and_labels, check_temperature
from tfkd.ops.norms import as_float32, other_classes


def decoupled(
  teacher_logits: tf.Tensor,
  student_logits: tf.Tensor,
  labels: tf.Tensor,
  temperature: Scalar = 4.0,
  *,
  alpha: float = 1.0,
  beta: float = 8.0,
) -> tf.Tensor:
  """Computes a weighted sum of the divergences over (target, not target) and over the other classes.

    loss = T^2 (alpha KL(b(t) || b(s)) + beta KL(o(t) || o(s)))
    b = (p_y, 1 - p_y),  o = p without class y, sum 1,  p = softmax(logits / T)

  In plain distillation, beta is 1 - p_y(teacher), which is small where the teacher is confident.
  Source: Zhao et al. 2022, arXiv:2203.08679, eq. 7 and algorithm 1. With two classes the second term is 0.

  Args:
    teacher_logits: float [batch, classes], before softmax.
    student_logits: float [batch, classes], before softmax.
    labels: int [batch], in 0..classes - 1.
    temperature: positive number, dimensionless.
    alpha: weight of the target term.
    beta: weight of the term of the other classes.

  Returns:
    float32 [batch], in nats, >= 0; 0 when the logits agree up to a constant.

  Raises:
    ValueError: temperature is not positive and finite, shapes differ, or there are fewer than two classes.
    InvalidArgumentError: a label is out of range.
  """
  check_temperature(temperature)
  teacher, student = as_float32(teacher_logits), as_float32(student_logits)
  labels = check_logits_and_labels(teacher, student, labels)
  target = kl_from_log_probabilities(
    _target_log_probabilities(teacher / temperature, labels),
    _target_log_probabilities(student / temperature, labels),
  )
  rest = soft_target_kl(other_classes(teacher, labels), other_classes(student, labels), temperature)
  return temperature**2 * (alpha * target + beta * rest)


def _target_log_probabilities(logits, labels):
  """float32 [batch, 2]: log-probabilities of the label and of all other classes together."""
  log_p = tf.nn.log_softmax(logits)
  others = tf.reduce_logsumexp(other_classes(log_p, labels), axis=1)
  return tf.stack([tf.gather(log_p, labels, batch_dims=1), others], axis=1)
