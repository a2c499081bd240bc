"""Losses between temperature-softened distributions (Hinton, Vinyals, Dean 2015)."""

import tensorflow as tf

from tfkd.ops.checks import Scalar, check_same_shape, check_temperature
from tfkd.ops.norms import as_float32


def tempered_cross_entropy(
  target_probabilities: tf.Tensor, student_logits: tf.Tensor, temperature: Scalar
) -> tf.Tensor:
  """Computes the cross-entropy of the temperature-softened student against given probabilities.

    loss = - sum_c target_c log softmax(student_logits / temperature)_c

  Source: Hinton, Vinyals, Dean 2015, arXiv:1503.02531, section 2. Not multiplied by T^2.

  Args:
    target_probabilities: float [..., classes], each row non-negative with sum 1; one-hot rows for labels.
    student_logits: float [..., classes], before softmax.
    temperature: positive number, dimensionless; T=1 is the plain softmax. Applied to the student only.

  Returns:
    float32 [...], in nats, >= 0.

  Raises:
    ValueError: temperature is not positive and finite, or the shapes differ.
  """
  check_temperature(temperature)
  target, student = as_float32(target_probabilities), as_float32(student_logits)
  check_same_shape(target, student, "target probabilities", "student logits")
  # The fused operation uses log-softmax, and its gradient is exactly (softmax - target) / T.
  return tf.nn.softmax_cross_entropy_with_logits(target, student / temperature)


def soft_target_cross_entropy(teacher_logits: tf.Tensor, student_logits: tf.Tensor, temperature: Scalar) -> tf.Tensor:
  """Computes the cross-entropy between temperature-softened teacher and student distributions.

    loss = - sum_c p_c log q_c,  p = softmax(teacher_logits / T),  q = softmax(student_logits / T)

  The student's gradient equals that of `soft_target_kl`; the minimum is the teacher's entropy, not zero.
  Source: Hinton, Vinyals, Dean 2015, arXiv:1503.02531, eq. 1-2. Not multiplied by T^2.

  Args:
    teacher_logits: float [..., classes], before softmax.
    student_logits: float [..., classes], before softmax.
    temperature: positive number, dimensionless; T=1 is the plain softmax.

  Returns:
    float32 [...], in nats.

  Raises:
    ValueError: temperature is not positive and finite, or the shapes differ.

  >>> z = tf.zeros([1, 4])
  >>> round(float(soft_target_cross_entropy(z, z, 2.0)[0]), 4)  # log 4
  1.3863
  """
  check_temperature(temperature)
  teacher, student = as_float32(teacher_logits), as_float32(student_logits)
  check_same_shape(teacher, student, "teacher logits", "student logits")
  return tempered_cross_entropy(tf.nn.softmax(teacher / temperature), student, temperature)


def soft_target_kl(teacher_logits: tf.Tensor, student_logits: tf.Tensor, temperature: Scalar) -> tf.Tensor:
  """Computes the Kullback-Leibler divergence from the softened student to the softened teacher distribution.

    loss = sum_c p_c (log p_c - log q_c),  p = softmax(teacher_logits / T),  q = softmax(student_logits / T)

  Source: Hinton, Vinyals, Dean 2015, arXiv:1503.02531, eq. 1-2. Not multiplied by T^2.

  Args:
    teacher_logits: float [..., classes], before softmax.
    student_logits: float [..., classes], before softmax.
    temperature: positive number, dimensionless; T=1 is the plain softmax.

  Returns:
    float32 [...], in nats, >= 0; 0 when the logits agree up to a constant.

  Raises:
    ValueError: temperature is not positive and finite, or the shapes differ.

  >>> z = tf.constant([[1.0, 2.0, 3.0]])
  >>> soft_target_kl(z, z + 5.0, 2.0).numpy().tolist()
  [0.0]
  """
  check_temperature(temperature)
  teacher, student = as_float32(teacher_logits), as_float32(student_logits)
  check_same_shape(teacher, student, "teacher logits", "student logits")
  log_p = tf.nn.log_softmax(teacher / temperature)
  log_q = tf.nn.log_softmax(student / temperature)
  return kl_from_log_probabilities(log_p, log_q)


def kl_from_log_probabilities(log_p: tf.Tensor, log_q: tf.Tensor) -> tf.Tensor:
  """Computes sum_c p_c (log p_c - log q_c) over the last axis, also accurately for nearly equal distributions.

  At T = 100 the summands of this form are a hundred times their sum, and float32 loses three digits. Since
  both distributions sum to one, sum p d = sum p (d + exp(-d) - 1) with d = log p - log q, whose terms are all >= 0.

  Args:
    log_p, log_q: float32 [..., classes], log-probabilities.

  Returns:
    float32 [...], in nats, >= 0.
  """
  d = log_p - log_q
  p = tf.exp(log_p)
  # p exp(-d) equals q, which is used where exp(-d) could overflow. The clipping keeps the unused branch, and so the
  # gradient, finite.
  near = tf.math.expm1(-tf.maximum(d, -1.0)) * p
  far = tf.exp(log_q) - p
  return tf.reduce_sum(p * d + tf.where(d < -1.0, far, near), axis=-1)
