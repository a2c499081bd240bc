"""Variational information distillation (Ahn et al. 2019)."""

from collections.abc import Sequence

import tensorflow as tf

from tfkd.ops.checks import Scalar, check_same_shape
from tfkd.ops.norms import as_float32, flat


def variational_information(
  teacher_feature: tf.Tensor, student_feature: tf.Tensor, variance: Scalar | Sequence[float]
) -> tf.Tensor:
  """Computes the negative log-likelihood of the teacher feature under a Gaussian around the student feature.

    loss = mean 1/2 [(teacher - student)^2 / variance + log variance]

  The constant is omitted. Minimizing the loss maximizes a lower bound on the mutual information of the features.
  Source: Ahn et al. 2019, arXiv:1904.05835. Differs: mean over elements, as in the authors' code.

  Args:
    teacher_feature: float [batch, ..., channels].
    student_feature: float, the same shape: the predicted mean.
    variance: positive float [channels] or number, in squared units of the feature.

  Returns:
    float32 [batch], >= mean 1/2 log variance, with equality when the features agree.

  Raises:
    ValueError: the shapes differ.
  """
  teacher, student = as_float32(teacher_feature), as_float32(student_feature)
  check_same_shape(teacher, student, "teacher feature", "student feature")
  variance = as_float32(variance)
  likelihood = 0.5 * (tf.math.squared_difference(teacher, student) / variance + tf.math.log(variance))
  return tf.reduce_mean(flat(likelihood), axis=1)
