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


def soft_target_jsd(
  teacher_logits: tf.Tensor, student_logits: tf.Tensor, temperature: Scalar, beta: float = 0.5
) -> tf.Tensor:
  """Computes the generalised Jensen-Shannon divergence between temperature-softened teacher and student distributions.

    loss = beta KL(p || m) + (1 - beta) KL(q || m),  m = beta p + (1 - beta) q

  with p = softmax(teacher_logits / T) and q = softmax(student_logits / T). Divided by beta, it tends to KL(p || q) as
  beta tends to 0; divided by 1 - beta, to KL(q || p) as beta tends to 1.
  Source: Agarwal et al. 2024, arXiv:2306.13649, eq. 1. Not multiplied by T^2.

  Args:
    teacher_logits: float [..., classes], before softmax.
    student_logits: float [..., classes], before softmax.
    temperature: positive number, dimensionless; T=1 is the plain softmax.
    beta: number between 0 and 1, the teacher's share of the mixture; 0.5 gives the Jensen-Shannon divergence.

  Returns:
    float32 [...], in nats, between 0 and the entropy of (beta, 1 - beta).

  Raises:
    ValueError: temperature is not positive and finite, beta is not between 0 and 1, or the shapes differ.
  """
  check_temperature(temperature)
  if not 0 < beta < 1:
    raise ValueError(f"beta must be between 0 and 1; got {beta}.")
  teacher, student = as_float32(teacher_logits), as_float32(student_logits)
  check_same_shape(teacher, student, "teacher logits", "student logits")
  log_p = tf.nn.log_softmax(teacher / temperature)
  log_q = tf.nn.log_softmax(student / temperature)
  # log m = log q + log(1 + beta (p / q - 1)), seen from the larger of p and q, so that the ratio is at most one.
  log_ratio = -tf.abs(log_p - log_q)
  share_of_smaller = tf.where(log_p < log_q, beta, 1.0 - beta)
  log_m = tf.maximum(log_p, log_q) + tf.math.log1p(share_of_smaller * tf.math.expm1(log_ratio))
  return beta * kl_from_log_probabilities(log_p, log_m) + (1.0 - beta) * kl_from_log_probabilities(log_q, log_m)


def binary_soft_target_kl(teacher_logits: tf.Tensor, student_logits: tf.Tensor, temperature: Scalar) -> tf.Tensor:
  """Computes the divergence between temperature-softened probabilities of independent labels, averaged over the labels.

    loss = mean_l p_l log(p_l / q_l) + (1 - p_l) log((1 - p_l) / (1 - q_l)),
    p = sigmoid(teacher_logits / T),  q = sigmoid(student_logits / T)

  Each label is a distribution over two classes with logits (z, 0). The mean over the last axis is that of Keras'
  `BinaryCrossentropy`. Source: Hinton, Vinyals, Dean 2015, arXiv:1503.02531, eq. 1-2, for two classes. Not multiplied
  by T^2.

  Args:
    teacher_logits: float [..., labels], before sigmoid; one label gives a last axis of length one.
    student_logits: float [..., labels], before sigmoid.
    temperature: positive number, dimensionless; T=1 is the plain sigmoid.

  Returns:
    float32 [...], in nats, >= 0; 0 when the logits agree.

  Raises:
    ValueError: temperature is not positive and finite, or the shapes differ.
  """
  check_temperature(temperature)
  teacher, student = as_float32(teacher_logits) / temperature, as_float32(student_logits) / temperature
  check_same_shape(teacher, student, "teacher logits", "student logits")
  log_p, log_q = (tf.stack([tf.math.log_sigmoid(z), tf.math.log_sigmoid(-z)], axis=-1) for z in (teacher, student))
  return tf.reduce_mean(kl_from_log_probabilities(log_p, log_q), axis=-1)


def soft_target_reverse_kl(teacher_logits: tf.Tensor, student_logits: tf.Tensor, temperature: Scalar) -> tf.Tensor:
  """Computes the Kullback-Leibler divergence from the softened teacher to the softened student distribution.

    loss = sum_c q_c (log q_c - log p_c),  p = softmax(teacher_logits / T),  q = softmax(student_logits / T)

  It seeks modes: probability where the teacher has none costs most, classes that the student leaves out cost little.
  Source: Gu et al. 2024, arXiv:2306.08543, section 2.1, for single distributions. Not multiplied by T^2.

  Args:
    teacher_logits: float [..., classes], before softmax.
    student_logits: float [..., classes], before softmax.
    temperature: positive number, dimensionless; T=1 is the plain softmax.

  Returns:
    float32 [...], in nats, >= 0; 0 when the logits agree up to a constant.

  Raises:
    ValueError: temperature is not positive and finite, or the shapes differ.
  """
  teacher, student = as_float32(teacher_logits), as_float32(student_logits)
  check_same_shape(teacher, student, "teacher logits", "student logits")
  return soft_target_kl(student, teacher, temperature)


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
