"""Quantizers whose steps are trained with the network, and which tensors of a layer they round.

The formulas are those of `learned_step`. Differs from their papers:

- A step is stored as its logarithm, whose gradient is that of the step divided by the step. An update of SGD then
  changes the step by the same amount to first order, and one of Adam by a share of the step, whatever its size: the
  steps of a network differ by orders of magnitude.
- The offset of LSQ+ is a zero point, rounded to an integer, so that 0 has a level, as padding needs.
- Steps start where they minimize the mean squared error of rounding, as in LSQ+, for features too.
- Each output channel of a kernel has a step.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras as keras

from tfkd.quantization.configs import KernelConfig
from tfkd.quantization.learned_step import best_step, learned_range, learned_relu, learned_step, level_of_zero

Quantizer = tfmot.quantization.keras.quantizers.Quantizer
_register = keras.utils.register_keras_serializable(package="tfkd")
_UNCALIBRATED = 12.0  # Width of the range of features before calibration.
_ZERO_POINTS = 15  # Largest number of zero points of which each is tried.
_SAMPLE = 2**12  # Values of one batch that decide the initial step.


def _variable_of_step(layer: keras.layers.Layer, name: str, shape: Sequence[int], initial: float) -> tf.Variable:
  return layer.add_weight(
    f"{name}_log_step", shape=shape, initializer=keras.initializers.Constant(math.log(initial)), trainable=True
  )


def _step(log_step: tf.Variable, scale: float) -> Any:
  """Returns the step, whose gradient is multiplied by `scale` and divided by the step for its logarithm."""

  @tf.custom_gradient
  def exponential(log_step):
    step = tf.exp(log_step)
    return step, lambda gradient: scale * gradient / step

  return exponential(tf.convert_to_tensor(log_step))


def _scaled_gradient(variable: tf.Variable, scale: float) -> Any:
  """Returns the value of a variable, whose gradient is multiplied by `scale`."""

  @tf.custom_gradient
  def identity(value):
    return tf.identity(value), lambda gradient: scale * gradient

  return identity(tf.convert_to_tensor(variable))


@_register
class LearnedStepWeights(Quantizer):
  """Rounds a kernel with one trained step for each output channel; see `learned_step`.

  Args:
    bits: bits of a weight, 2..8.
    axes: axes of the kernel that are channels.
    is_symmetric: whether the levels are -(2^(bits - 1) - 1) .. 2^(bits - 1) - 1, those of LiteRT, in place of the
      paper's -2^(bits - 1) .. 2^(bits - 1) - 1.
    scheme: name of the scheme of the model.
  """

  def __init__(self, bits: int, axes: Sequence[int], is_symmetric: bool, scheme: str):
    self.bits, self.axes, self.is_symmetric, self.scheme = bits, list(axes), is_symmetric, scheme
    self.high = 2 ** (bits - 1) - 1
    self.low = -self.high if is_symmetric else -self.high - 1

  def build(self, tensor_shape: tf.TensorShape, name: str, layer: keras.layers.Layer) -> dict[str, Any]:
    sizes: Any = tensor_shape.as_list()
    shape = [size if axis in self._positive(len(sizes)) else 1 for axis, size in enumerate(sizes)]
    return {"log_step": _variable_of_step(layer, name, shape, 1.0 / self.high)}

  def __call__(self, inputs: tf.Tensor, training: bool, weights: dict[str, Any], **kwargs: Any) -> tf.Tensor:
    shape: Any = inputs.shape
    per_step = math.prod(shape) / math.prod(weights["log_step"].shape)
    step = _step(weights["log_step"], 1 / math.sqrt(per_step * self.high))
    return learned_step(inputs, step, self.low, self.high)

  def initialize(self, kernel: tf.Variable, weights: dict[str, Any]) -> None:
    """Sets the steps to those that round the kernel with the least mean squared error."""
    channels = self._positive(kernel.shape.rank)
    axes = tuple(axis for axis in range(kernel.shape.rank) if axis not in channels)
    weights["log_step"].assign(np.log(best_step(kernel.numpy(), self.low, self.high, axes)))

  def encode(self, kernel: tf.Variable, weights: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the levels of a kernel, int8 of its shape, and the steps, float32 that broadcasts to it."""
    step = tf.exp(weights["log_step"])
    levels = tf.clip_by_value(tf.round(kernel / step), float(self.low), float(self.high))
    return levels.numpy().astype(np.int8), step.numpy()

  def _positive(self, rank: int) -> list[int]:
    return [axis % rank for axis in self.axes]

  def get_config(self) -> dict[str, Any]:
    return {"bits": self.bits, "axes": self.axes, "is_symmetric": self.is_symmetric, "scheme": self.scheme}


@_register
class LearnedStepFeatures(Quantizer):
  """Rounds features with one trained step, and with a trained zero point where they can be negative.

  See `learned_range`; features that are never negative have the levels 0 .. 2^bits - 1.

  Args:
    bits: bits of a feature, 1..8.
    is_signed: whether the zero point is trained; else it is 0.
    scheme: name of the scheme of the model.
  """

  def __init__(self, bits: int, is_signed: bool, scheme: str):
    self.bits, self.is_signed, self.scheme = bits, is_signed, scheme
    self.high = 2**bits - 1

  def build(self, tensor_shape: tf.TensorShape, name: str, layer: keras.layers.Layer) -> dict[str, Any]:
    self._per_example = math.prod(size or 1 for size in tuple(tensor_shape)[1:])
    found = {"log_step": _variable_of_step(layer, name, [], _UNCALIBRATED / self.high)}
    if self.is_signed:
      initial = keras.initializers.Constant(2 ** (self.bits - 1) if self.bits > 1 else 0)
      # One bit has no other level than 0 and a step.
      trainable = self.bits > 1
      found["zero_point"] = layer.add_weight(f"{name}_zero_point", shape=[], initializer=initial, trainable=trainable)
    return found

  def __call__(self, inputs: tf.Tensor, training: bool, weights: dict[str, Any], **kwargs: Any) -> tf.Tensor:
    scale = 1 / math.sqrt(self._per_example * self.high)
    step = _step(weights["log_step"], scale)
    if training and not self.is_signed:
      return learned_relu(inputs, step, self.bits)
    zero_point = _scaled_gradient(weights["zero_point"], scale) if self.is_signed else tf.zeros([])
    if training and self.bits > 1:
      return learned_range(inputs, step, zero_point, self.bits)
    # The arithmetic of files and of packed files.
    zero = level_of_zero(zero_point, self.high)
    return learned_step(inputs, step, -zero, self.high - zero)

  def is_initial(self, weights: dict[str, Any]) -> bool:
    """Returns whether the step was neither calibrated nor trained."""
    return bool(weights["log_step"].numpy() == np.float32(math.log(_UNCALIBRATED / self.high)))

  def initialize(self, values: np.ndarray, weights: dict[str, Any]) -> None:
    """Sets step and zero point to those that round values with the least mean squared error."""
    zeros = range(self.high) if self.is_signed else range(1)
    if len(zeros) > _ZERO_POINTS:
      least, most = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
      zeros = [min(round(-least / max(most - least, 1e-30) * self.high), self.high - 1)]
    found = []
    for zero in zeros:
      (step,) = best_step(values, -zero, self.high - zero, (0,))
      levels = np.clip(np.round(values / step), -zero, self.high - zero)
      found.append((float(((levels * step - values) ** 2).mean()), zero, step))
    _, zero, step = min(found)
    weights["log_step"].assign(np.log(step))
    if self.is_signed:
      weights["zero_point"].assign(zero)

  def get_config(self) -> dict[str, Any]:
    return {"bits": self.bits, "is_signed": self.is_signed, "scheme": self.scheme}


def sample(features: tf.Tensor) -> np.ndarray:
  """Returns values of a batch of features, float32 [n], that represent them."""
  flat = np.asarray(features).ravel()
  return flat[:: max(1, len(flat) // _SAMPLE)]


@_register
class LearnedStepConfig(KernelConfig):
  """Rounds the kernel of a layer, its output, or both, with trained steps.

  Args:
    kernel: name of the layer's kernel attribute; None rounds no weights.
    weights: arguments of `LearnedStepWeights`; None for no kernel.
    features: arguments of `LearnedStepFeatures`; None does not round the output.
  """

  def __init__(self, kernel: str | None, weights: dict[str, Any] | None, features: dict[str, Any] | None):
    super().__init__(kernel)
    self.weights, self.features = weights, features

  def get_weights_and_quantizers(self, layer: keras.layers.Layer) -> list[tuple[tf.Variable, LearnedStepWeights]]:
    if self.kernel is None or self.weights is None:
      return []
    return [(getattr(layer, self.kernel), LearnedStepWeights(**self.weights))]

  def get_output_quantizers(self, layer: keras.layers.Layer) -> list[LearnedStepFeatures]:
    return [] if self.features is None else [LearnedStepFeatures(**self.features)]

  def get_config(self) -> dict[str, Any]:
    return {"kernel": self.kernel, "weights": self.weights, "features": self.features}


@_register
class LearnedKernelConfig(tfmot.quantization.keras.QuantizeConfig):
  """Rounds the kernels of another configuration with trained steps, and its features as it does.

  Args:
    config: configuration of tfmot, or the result of `get_config` for it.
    weights: arguments of `LearnedStepWeights` without the axes, which are those of the configuration's quantizers.
  """

  def __init__(self, config: Any, weights: dict[str, Any]):
    if not isinstance(config, tfmot.quantization.keras.QuantizeConfig):
      config = keras.utils.deserialize_keras_object(config)
    self.config, self.weights = config, weights

  def get_weights_and_quantizers(self, layer: keras.layers.Layer) -> list[tuple[tf.Variable, LearnedStepWeights]]:
    return [
      (kernel, LearnedStepWeights(axes=[-1] if getattr(quantizer, "per_axis", False) else [], **self.weights))
      for kernel, quantizer in self.config.get_weights_and_quantizers(layer)
    ]

  def set_quantize_weights(self, layer: keras.layers.Layer, quantize_weights: Sequence[tf.Tensor]) -> None:
    self.config.set_quantize_weights(layer, quantize_weights)

  def get_activations_and_quantizers(self, layer: keras.layers.Layer) -> list:
    return self.config.get_activations_and_quantizers(layer)

  def set_quantize_activations(self, layer: keras.layers.Layer, quantize_activations: Sequence[Any]) -> None:
    self.config.set_quantize_activations(layer, quantize_activations)

  def get_output_quantizers(self, layer: keras.layers.Layer) -> list:
    return self.config.get_output_quantizers(layer)

  def get_config(self) -> dict[str, Any]:
    return {"config": keras.utils.serialize_keras_object(self.config), "weights": self.weights}


for _kind in (LearnedStepWeights, LearnedStepFeatures, LearnedStepConfig, LearnedKernelConfig):
  keras.saving.get_custom_objects()[_kind.__name__] = _kind  # For HDF5 files.
