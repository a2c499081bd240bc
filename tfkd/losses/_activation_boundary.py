"""Activation boundary transfer: which neurons are active, not how strongly (Heo et al. 2019)."""

import tensorflow as tf

from tfkd.ops.checks import Scalar, check_same_shape
from tfkd.ops.norms import as_float32, flat


def activation_boundary(teacher_feature: tf.Tensor, student_feature: tf.Tensor, *, margin: Scalar = 1.0) -> tf.Tensor:
  """Computes a squared hinge loss on the sign of every neuron before its ReLU.

    loss = sum (s + m)^2 [t <= 0, s > -m] + (s - m)^2 [t > 0, s <= m]

  Source: Heo et al. 2019, arXiv:1811.03233, the piecewise differentiable loss. Sums over the elements of
  an example, as the paper does, so that typical weights are small.

  Args:
    teacher_feature: float [batch, ...], before the activation function.
    student_feature: float, the same shape, before the activation function.
    margin: positive number, in units of the student feature.

  Returns:
    float32 [batch], in squared units of the feature, >= 0; 0 when every student neuron is beyond the margin on its
    teacher's side. Equal features inside the margin are not at the minimum.

  Raises:
    ValueError: the shapes differ, or margin is not positive.
  """
  if not margin > 0:
    raise ValueError(f"margin must be positive; got {margin}.")
  teacher, student = as_float32(teacher_feature), as_float32(student_feature)
  check_same_shape(teacher, student, "teacher feature", "student feature")
  missing = tf.where(teacher > 0, tf.maximum(margin - student, 0.0), tf.maximum(margin + student, 0.0))
  return tf.reduce_sum(flat(missing**2), axis=1)
