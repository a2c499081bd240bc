"""TensorFlow's fake quantization with faster gradients, equal to its own to the bit."""

from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.ops import control_flow_util

TINY = float(np.finfo(np.float32).tiny)
"""The smallest positive float32: TensorFlow computes with 0 in place of smaller numbers."""


def inside(upstream: tf.Tensor, values: tf.Tensor, least: Any, most: Any) -> tf.Tensor:
  """Returns a gradient where values are in [least, most], and 0 elsewhere.

  Args:
    upstream: float32 [...].
    values: like `upstream`.
    least, most: scalars.
  """
  if control_flow_util.GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph()):  # `jit_compile`
    return tf.where(tf.logical_and(values >= least, values <= most), upstream, tf.zeros_like(upstream))
  # The gradient of another operation for rounding, which computes just this, in one pass. XLA lacks it.
  return tf.raw_ops.QuantizeAndDequantizeV4Grad(gradients=upstream, input=values, input_min=least, input_max=most)[0]


def in_range(
  values: tf.Tensor, low: tf.Tensor, high: tf.Tensor, bits: int, narrow_range: bool, is_relu: bool = False
) -> Any:
  """Does what `tf.quantization.fake_quant_with_min_max_vars` does; the range has no gradient.

  Args:
    values: float32 [...].
    low, high: scalars, low <= 0 <= high and low < high.
    bits, narrow_range: see TensorFlow's function.
    is_relu: whether values are inputs of a ReLU, which is applied to them too; low must be 0.
  """

  @tf.custom_gradient
  def rounded(values):
    def gradient(upstream):
      least, most = _range_of_levels(low, high, 1.0 if narrow_range else 0.0, 2.0**bits - 1)
      return inside(upstream, values, TINY if is_relu else least, most)

    # The operation clips to the range, so that it computes the ReLU too.
    return tf.quantization.fake_quant_with_min_max_vars(values, low, high, bits, narrow_range), gradient

  return rounded(values)


def _range_of_levels(low: tf.Tensor, high: tf.Tensor, first: float, last: float) -> tuple[tf.Tensor, tf.Tensor]:
  """Returns the range of the levels first, ..., last, one of which is 0, with the operation's arithmetic."""
  scale = (high - low) / _divisor(last - first)
  zero = tf.clip_by_value(first - low / scale, first, last)
  whole = tf.floor(zero)
  zero = whole + tf.cast(zero - whole >= 0.5, tf.float32)
  return (first - zero) * scale, (last - zero) * scale


def per_channel(kernel: tf.Tensor, most: tf.Tensor, bits: int) -> Any:
  """Rounds a kernel in the ranges [-most, most] of its channels, with a level for 0; the gradient passes to all inside.

  Args:
    kernel: float32 [..., channels].
    most: float32 [channels], >= 0.
    bits: bits of a weight, of whose levels the lowest is not used.
  """
  half = 2.0 ** (bits - 1) - 1
  scale = (most + most) / _divisor(2 * half)
  highest = half * scale

  @tf.custom_gradient
  def rounded(kernel):
    def gradient(upstream):
      return upstream * tf.cast(tf.abs(kernel) <= highest, upstream.dtype)

    # The arithmetic of TensorFlow's operation in its order, which takes half of the time: it computes by channel,
    # and the channels of a kernel are not contiguous.
    clipped = tf.maximum(tf.minimum(kernel, highest), -highest)
    levels = tf.floor((clipped + highest) * tf.math.divide_no_nan(2 * half, most + most) - half + 0.5)
    return levels * scale, gradient

  return rounded(kernel)


def _divisor(value: float) -> tf.Tensor:
  """Returns a constant by which graphs divide, and do not multiply by its inverse."""
  return tf.compat.v1.placeholder_with_default(tf.constant(value), [])
