"""Norms and distances with gradients that are finite at zero."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

_TINY = 1e-12


def as_float32(tensor: Any) -> tf.Tensor:
  """Converts a tensor, array or number to a float32 tensor."""
  return tf.cast(tf.convert_to_tensor(tensor), tf.float32)


def square_root(x: tf.Tensor) -> tf.Tensor:
  """Computes sqrt(x) for x >= 0; the gradient at 0 is 0 instead of infinity."""
  zero = x <= 0.0
  return tf.where(zero, 0.0, tf.sqrt(tf.where(zero, 1.0, x)))


def unit(x: tf.Tensor, axis: int | Sequence[int] | None, epsilon: float = _TINY) -> tf.Tensor:
  """Computes x / max(||x||_2, epsilon) along axes; the gradient at 0 is 0 instead of 1 / epsilon."""
  squares = tf.reduce_sum(x * x, axis, keepdims=True)
  return x * tf.where(squares > 0.0, tf.math.rsqrt(tf.maximum(squares, epsilon**2)), 0.0)


def rescaled(x: tf.Tensor, axis: int | Sequence[int] | None = None) -> tf.Tensor:
  """Divides x by its largest magnitude, so that squares neither overflow nor underflow in scale-invariant losses.

  The gradient treats the divisor as a constant, which is exact for scale-invariant losses.
  """
  largest = tf.stop_gradient(tf.reduce_max(tf.abs(x), axis, keepdims=True))
  return tf.math.divide_no_nan(x, largest)


def flat(x: tf.Tensor) -> tf.Tensor:
  """Reshapes [batch, ...] to [batch, elements]."""
  return tf.reshape(x, [tf.shape(x)[0], -1]) if x.shape.rank != 2 else x


def positions_in_rows(x: tf.Tensor) -> tf.Tensor:
  """Reshapes a sequence or map [batch, ..., channels] to [batch, positions, channels]."""
  if x.shape.rank == 3:
    return x
  shape = tf.shape(x)
  positions = x.shape[1:-1].num_elements() or tf.reduce_prod(shape[1:-1])
  return tf.reshape(x, [shape[0], positions, x.shape[-1]])


def other_classes(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
  """Removes the column of the label from each row: [batch, classes] to [batch, classes - 1].

  Uses a gather, because masking with a large negative logit would lose digits.
  """
  others = tf.range(logits.shape[1] - 1)[None, :]
  others += tf.cast(others >= labels[:, None], tf.int32)
  return tf.gather(logits, others, batch_dims=1)


def pairwise_distances(x: tf.Tensor) -> tf.Tensor:
  """Computes the Euclidean distances between all rows: float32 [batch, d] to [batch, batch], zero on the diagonal."""
  x -= tf.stop_gradient(tf.reduce_mean(x, axis=0))  # Distances are unchanged; large common offsets would cost digits.
  squares = tf.reduce_sum(x * x, axis=1)
  squared = squares[:, None] + squares[None, :] - 2.0 * tf.matmul(x, x, transpose_b=True)
  squared = tf.linalg.set_diag(squared, tf.zeros_like(squares))
  return square_root(tf.maximum(squared, 0.0))
