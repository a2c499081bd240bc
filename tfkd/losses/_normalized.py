"""Normalized knowledge distillation: the other classes renormalized to sum 1 (Yang et al. 2023)."""

import tensorflow as tf

from tfkd.losses._soft_targets import soft_target_cross_entropy
from tfkd.ops.checks import Scalar, check_logits_and_labels, check_temperature
from tfkd.ops.norms import as_float32, other_classes


def normalized(
  teacher_logits: tf.Tensor,
  student_logits: tf.Tensor,
  labels: tf.Tensor,
  temperature: Scalar = 1.0,
  *,
  gamma: float = 1.5,
) -> tf.Tensor:
  """Computes a confidence-weighted cross-entropy on the label plus a cross-entropy over the other classes.

    loss = - p_y log q_y - gamma T^2 sum_{c != y} o_c(t) log o_c(s)
    p, q = softmax(logits), o = softmax(logits / T) without class y, sum 1

  Unlike in `decoupled`, the target term has no temperature and no term for "not target". The minimum is not zero.
  Source: Yang et al. 2023, arXiv:2303.13005, soft loss. With two classes the second term is 0.

  Args:
    teacher_logits: float [batch, classes], before softmax.
    student_logits: float [batch, classes], before softmax.
    labels: int [batch], in 0..classes - 1.
    temperature: positive number, dimensionless; softens the other classes only.
    gamma: weight of the term of the other classes.

  Returns:
    float32 [batch], in nats, >= 0.

  Raises:
    ValueError: temperature is not positive and finite, shapes differ, or there are fewer than two classes.
    InvalidArgumentError: a label is out of range.
  """
  check_temperature(temperature)
  teacher, student = as_float32(teacher_logits), as_float32(student_logits)
  labels = check_logits_and_labels(teacher, student, labels)
  confidence = tf.gather(tf.nn.softmax(teacher), labels, batch_dims=1)
  target = -confidence * tf.gather(tf.nn.log_softmax(student), labels, batch_dims=1)
  rest = soft_target_cross_entropy(other_classes(teacher, labels), other_classes(student, labels), temperature)
  return target + gamma * temperature**2 * rest
