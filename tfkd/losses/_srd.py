"""Simple recipe distillation: the logarithm of a high power of the distance (Miles, Mikolajczyk 2024)."""

import tensorflow as tf

from tfkd.ops.checks import check_same_shape
from tfkd.ops.norms import as_float32

_EPSILON = 1e-30  # Smaller than any relevant distance, and representable in float32.


def log_power_distance(teacher_embedding: tf.Tensor, student_embedding: tf.Tensor, *, power: float = 4.0) -> tf.Tensor:
  """Computes the logarithm of the summed powers of the differences, over batch and elements.

    loss = log(sum_bd |teacher_bd - student_bd|^power + 1e-30)

  Source: Miles, Mikolajczyk 2024, arXiv:2303.11098; the paper batch-normalizes both embeddings.

  Args:
    teacher_embedding: float [batch, ...].
    student_embedding: float, the same shape.
    power: number >= 1; the paper uses 4.

  Returns:
    float32 scalar, since it takes the logarithm of a sum over the batch; log 1e-30 = -69.1 when the embeddings agree.

  Raises:
    ValueError: the shapes differ, or power is below 1.
  """
  if power < 1:
    raise ValueError(f"power must be at least 1; got {power}.")
  teacher, student = as_float32(teacher_embedding), as_float32(student_embedding)
  check_same_shape(teacher, student, "teacher embedding", "student embedding")
  return tf.math.log(tf.reduce_sum(tf.abs(teacher - student) ** power) + _EPSILON)
