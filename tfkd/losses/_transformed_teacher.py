"""Transformed teacher matching: temperature applied to the teacher only (Zheng, Yang 2024)."""

import tensorflow as tf

from tfkd.losses._soft_targets import kl_from_log_probabilities
from tfkd.ops.checks import Scalar, check_same_shape, check_temperature
from tfkd.ops.norms import as_float32


def transformed_teacher(
  teacher_logits: tf.Tensor, student_logits: tf.Tensor, temperature: Scalar, *, weighted: bool = False
) -> tf.Tensor:
  """Computes the Kullback-Leibler divergence from the student at T = 1 to the softened teacher.

    loss = w sum_c p_c (log p_c - log q_c),  p = softmax(teacher_logits / T),  q = softmax(student_logits)
    w = 1, or weighted: sum_c softmax(teacher_logits)_c^(1 / T), larger where the teacher is less confident

  Dropping the student's temperature adds a Renyi entropy regularizer to plain distillation.
  Source: Zheng, Yang 2024, arXiv:2402.11148, TTM, and WTTM if weighted. Not multiplied by T^2, because the
  gradient does not shrink with T.

  Args:
    teacher_logits: float [..., classes], before softmax.
    student_logits: float [..., classes], before softmax.
    temperature: positive number, dimensionless; applied to the teacher only.
    weighted: whether to weight examples by their power sum.

  Returns:
    float32 [...], in nats, >= 0; 0 when the student's distribution is the softened teacher's.

  Raises:
    ValueError: temperature is not positive and finite, or the shapes differ.
  """
  check_temperature(temperature)
  teacher, student = as_float32(teacher_logits), as_float32(student_logits)
  check_same_shape(teacher, student, "teacher logits", "student logits")
  loss = kl_from_log_probabilities(tf.nn.log_softmax(teacher / temperature), tf.nn.log_softmax(student))
  if weighted:
    loss *= tf.reduce_sum(tf.exp(tf.nn.log_softmax(teacher) / temperature), axis=-1)
  return loss
