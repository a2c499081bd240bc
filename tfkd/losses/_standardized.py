"""Logit standardization: removes offset and scale of logits (Sun et al. 2024)."""

import tensorflow as tf

from tfkd.ops.norms import as_float32, square_root

_EPSILON = 1e-7


def standardize_logits(logits: tf.Tensor) -> tf.Tensor:
  """Shifts and scales each row of logits to mean 0 and standard deviation 1.

    z = (logits - mean) / (std + 1e-7),   std^2 = sum (logits - mean)^2 / (classes - 1)

  Applied to teacher and student, it makes a loss independent of the magnitude of the teacher's logits.
  Source: Sun et al. 2024, arXiv:2403.01427; the standard deviation is unbiased, as in the authors' code.

  Args:
    logits: float [..., classes], before softmax.

  Returns:
    float32 [..., classes], dimensionless; 0 where all logits of a row are equal.

  Raises:
    ValueError: there are fewer than two classes.
  """
  logits = as_float32(logits)
  classes = logits.shape[-1]
  if classes < 2:
    raise ValueError(f"standardization needs at least two classes; got logits {logits.shape}.")
  centered = logits - tf.reduce_mean(logits, axis=-1, keepdims=True)
  std = square_root(tf.reduce_sum(centered**2, axis=-1, keepdims=True) / (classes - 1))
  return centered / (std + _EPSILON)
