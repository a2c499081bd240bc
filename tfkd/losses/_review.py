"""Knowledge review: features at several resolutions (Chen et al. 2021)."""

from typing import Any

import tensorflow as tf

from tfkd.ops.checks import check_rank, check_same_shape
from tfkd.ops.norms import as_float32
from tfkd.ops.pooling import average_pool

_SIDES = (4, 2, 1)


def hierarchical_context(teacher_feature: tf.Tensor, student_feature: tf.Tensor) -> tf.Tensor:
  """Computes a weighted mean of the squared errors of a map and of its pooled versions; weights 1, 1/2, 1/4, 1/8.

    loss = (mse(t, s) + sum_i 2^-i mse(pool_l(t), pool_l(s))) / (1 + sum_i 2^-i),  l = 4, 2, 1 where l < height

  Source: Chen et al. 2021, arXiv:2104.09044, the hierarchical context loss; weights as in the authors' code.

  Args:
    teacher_feature: float [batch, height, width, channels].
    student_feature: float, the same shape.

  Returns:
    float32 [batch], in squared units of the feature, >= 0; 0 when the features agree.

  Raises:
    ValueError: the shapes differ, or are not rank 4.
  """
  teacher, student = as_float32(teacher_feature), as_float32(student_feature)
  check_rank(teacher, 4, "teacher feature")
  check_same_shape(teacher, student, "teacher feature", "student feature")
  difference = teacher - student  # Pooling is linear.
  loss, weight, total = _mean_square(difference), 1.0, 1.0
  shape: Any = teacher.shape
  for side in _SIDES:
    if side < shape[1]:
      weight /= 2.0
      total += weight
      loss += weight * _mean_square(average_pool(difference, (side, min(side, shape[2]))))
  return loss / total


def _mean_square(x):
  return tf.reduce_mean(x**2, axis=[1, 2, 3])
