"""Feature distillation overhaul: partial distance between features before ReLU (Heo et al. 2019)."""

from collections.abc import Sequence

import tensorflow as tf

from tfkd.ops.checks import Scalar, check_same_shape
from tfkd.ops.norms import as_float32, flat


def partial_distance(
  teacher_feature: tf.Tensor, student_feature: tf.Tensor, margin: Scalar | Sequence[float] = 0.0
) -> tf.Tensor:
  """Computes the squared distance to the teacher feature, ignoring student neurons below an inactive teacher neuron.

    t = max(teacher, margin),   loss = sum (t - s)^2 [s > t or t > 0]

  Source: Heo et al. 2019, arXiv:1904.01866, margin ReLU and partial L2 distance. Sums over the elements of
  an example, as the authors do, so that typical weights are small.

  Args:
    teacher_feature: float [batch, ..., channels], before ReLU.
    student_feature: float, the same shape, before ReLU.
    margin: float [channels] or number <= 0, the mean of the teacher's negative activations.

  Returns:
    float32 [batch], in squared units of the feature, >= 0; 0 when positive activations are equal and all others are
    at most the margin.

  Raises:
    ValueError: the shapes differ.
  """
  teacher, student = as_float32(teacher_feature), as_float32(student_feature)
  check_same_shape(teacher, student, "teacher feature", "student feature")
  target = tf.maximum(teacher, as_float32(margin))
  counts = tf.logical_or(student > target, target > 0)
  return tf.reduce_sum(flat(tf.where(counts, target - student, 0.0) ** 2), axis=1)
