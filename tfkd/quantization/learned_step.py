"""Rounding to the multiples of a step that is trained (LSQ, LSQ+), and the step to start from.

Sources: Esser et al. 2020, arXiv:1902.08153 (LSQ); Bhalgat et al. 2020, arXiv:2004.09576 (LSQ+, for features that are
signed or shifted). `learned_quantizers` stores the steps.
"""

from typing import Any

import numpy as np
import tensorflow as tf

from tfkd.quantization import fake_quant

_CANDIDATES = np.geomspace(0.05, 1.2, 40)
"""Initial steps that are tried, as shares of the step with which nothing is clipped."""
_REFINEMENTS = 5


def learned_step(values: tf.Tensor, step: tf.Tensor, low: Any, high: Any) -> Any:
  """Rounds values to integer multiples of a step that is trained.

    q = step * clip(round(v), low, high),  v = values / step
    dq / dvalues = 1 if low < v < high else 0
    dq / dstep = round(v) - v if low < v < high, low if v <= low, high if v >= high

  Source: Esser et al. 2020, arXiv:1902.08153, eq. 1-3 and 5. Without the paper's scale of the gradient.

  Args:
    values: float [...].
    step: positive float, of a shape that broadcasts to that of `values`.
    low: lowest level, a number or scalar <= 0.
    high: highest level, a number or scalar > 0.

  Returns:
    Tensor like `values`.
  """

  @tf.custom_gradient
  def rounded(values, step):
    scaled = values / step
    levels = tf.clip_by_value(tf.round(scaled), tf.cast(low, values.dtype), tf.cast(high, values.dtype))

    def gradient(upstream):
      is_inside = tf.logical_and(scaled > low, scaled < high)
      of_step = upstream * tf.where(is_inside, levels - scaled, levels)
      return tf.where(is_inside, upstream, tf.zeros_like(upstream)), _summed(of_step, step.shape)

    return levels * step, gradient

  return rounded(values, step)


def learned_range(values: tf.Tensor, step: tf.Tensor, zero_point: tf.Tensor, bits: int) -> Any:
  """Rounds values to 2^bits levels, of which one is 0, with a step and a zero point that are trained.

    q = step * (clip(round(v) + z, 0, 2^bits - 1) - z),  v = values / step,  z = round(clip(zero_point, 0, 2^bits - 1))

  The gradients are those of `learned_step` with low = -z and high = 2^bits - 1 - z, and dq / dzero_point is -step
  where values are clipped, else 0.
  Source: Bhalgat et al. 2020, arXiv:2004.09576, eq. 5-7, whose offset is -step * zero_point, not rounded.

  Args:
    values: float32 [...].
    step: positive float32 scalar.
    zero_point: float32 scalar, the level of 0.
    bits: 2 to 8.

  Returns:
    Tensor like `values`; it may differ from the formula by an ulp.
  """
  highest = 2.0**bits - 1

  # TensorFlow's operations for fake quantization read each tensor once, forward and backward.
  @tf.custom_gradient
  def rounded(values, step, zero_point):
    zero = level_of_zero(zero_point, highest)
    least, most = -zero * step, (highest - zero) * step
    result = tf.quantization.fake_quant_with_min_max_vars(values, least, most, bits)

    def gradient(upstream):
      inside, below, above = tf.quantization.fake_quant_with_min_max_vars_gradient(upstream, values, least, most, bits)
      rounding = tf.reduce_sum(tf.reshape(inside * (result - values), [-1]))  # Sums of one axis are faster.
      of_step = rounding / step - zero * below + (highest - zero) * above
      return inside, of_step, -step * (below + above)

    return result, gradient

  return rounded(values, step, zero_point)


def learned_relu(values: tf.Tensor, step: tf.Tensor, bits: int) -> Any:
  """Rounds the positive part of values to 2^bits levels with a step that is trained.

    q = learned_step(relu(values), step, 0, 2^bits - 1)

  Args:
    values: float32 [...], before or after ReLU.
    step: positive float32 scalar.
    bits: 1 to 8.

  Returns:
    Tensor like `values`; it may differ from the formula by an ulp.
  """
  highest = 2.0**bits - 1

  @tf.custom_gradient
  def rounded(values, step):
    most = highest * step
    if bits > 1:
      result = tf.quantization.fake_quant_with_min_max_vars(values, tf.zeros([]), most, bits)
    else:
      result = tf.cast(values > step / 2, values.dtype) * step

    def gradient(upstream):
      inside = fake_quant.inside(upstream, values, fake_quant.TINY, most)
      of_step = tf.reduce_sum(tf.reshape(upstream * result - inside * values, [-1])) / step
      return inside, of_step

    return result, gradient

  return rounded(values, step)


def level_of_zero(zero_point: tf.Tensor, highest: float) -> tf.Tensor:
  """Returns the level 0, ..., highest that a trained zero point stands for."""
  return tf.round(tf.clip_by_value(zero_point, 0.0, float(highest)))


def _summed(gradient: tf.Tensor, shape: Any) -> tf.Tensor:
  """Sums a gradient over the axes along which a variable was broadcast."""
  missing = gradient.shape.rank - len(shape)
  axes = [axis for axis in range(gradient.shape.rank) if axis < missing or shape[axis - missing] == 1]
  return tf.reshape(tf.reduce_sum(gradient, axes), shape)


def best_step(values: np.ndarray, low: int, high: int, axes: tuple[int, ...]) -> np.ndarray:
  """Finds the step that minimizes the mean squared error of rounding to its multiples low, ..., high.

  Args:
    values: float [...].
    low, high: lowest and highest level.
    axes: axes of values that share a step.

  Returns:
    float64, of the shape of `values` with 1 in place of `axes`; positive, whatever the values are.
  """
  values = np.asarray(values, np.float64)
  widest = values.max(axes, keepdims=True) / high
  if low < 0:
    widest = np.maximum(widest, values.min(axes, keepdims=True) / low)
  widest = np.where(widest > 0, widest, 1.0)
  best, least = widest, np.full(widest.shape, np.inf)

  def levels(step):
    return np.clip(np.round(values / step), low, high)

  def error(step):
    return ((levels(step) * step - values) ** 2).sum(axes, keepdims=True)

  for candidate in _CANDIDATES:
    found = error(candidate * widest)
    best, least = np.where(found < least, candidate * widest, best), np.minimum(found, least)
  for _ in range(_REFINEMENTS):
    chosen = levels(best)
    squares = (chosen**2).sum(axes, keepdims=True)
    fitted = np.abs((chosen * values).sum(axes, keepdims=True)) / np.maximum(squares, 1e-30)
    fitted = np.where(fitted > 0, fitted, best)
    found = error(fitted)
    best, least = np.where(found < least, fitted, best), np.minimum(found, least)
  return best
