"""Quantizers of weights and features on fixed grids.

Source: Zhou et al. 2016, arXiv:1606.06160, and the SVHN homework. tfmot's n-bit scheme keeps features at eight bits and
learns ranges by moving averages. Here both grids are fixed, so that no calibration is needed and networks with two-bit
weights and one-bit features can be trained from random weights.
"""

from typing import Any

import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras as keras

from tfkd.ops.activations import activation_name
from tfkd.quantization.configs import KernelConfig
from tfkd.quantization.lowering import is_plain_relu

layers = keras.layers
_KERNELS = {layers.Conv2D: "kernel", layers.DepthwiseConv2D: "depthwise_kernel", layers.Dense: "kernel"}


@keras.utils.register_keras_serializable(package="tfkd")
class LowBitWeights(tfmot.quantization.keras.quantizers.Quantizer):
  """Rounds a kernel to 2^bits levels, evenly spaced and symmetric around zero.

    t = tanh(w),  s = scale * mean |t|,  u = clip(t / s, -1/2, 1/2)
    q = (round((u + 1/2) (2^bits - 1)) / (2^bits - 1) - 1/2) * s

  The gradient is that of tanh: it passes rounding and clip unchanged and takes s as a constant.
  Source: Zhou et al. 2016, arXiv:1606.06160, eq. 9. Differs: the paper divides by twice the largest |t|, the SVHN
  homework by twice the mean, which puts every weight beyond the mean on an outer level. Two weights in five are then
  clipped, and with zero gradient they would stay clipped.

  Args:
    bits: bits of a weight, 1..8.
    scale: full width of the grid in units of mean |tanh(w)|, > 0.
  """

  def __init__(self, bits: int, scale: float):
    self.bits = bits
    self.scale = scale

  def build(self, tensor_shape: tf.TensorShape, name: str, layer: keras.layers.Layer) -> dict[str, Any]:
    return {}

  def __call__(self, inputs: tf.Tensor, training: bool, weights: dict[str, Any], **kwargs: Any) -> tf.Tensor:
    squashed = tf.tanh(inputs)
    rounded = self.decode(*self._encode(squashed), self.bits)
    # The rounded value, bit for bit, with the gradient of the squashed weights.
    return tf.stop_gradient(rounded) + (squashed - tf.stop_gradient(squashed))

  def encode(self, kernel: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the levels of a kernel, integers in [0, 2^bits - 1] as float32, and the width s of the grid."""
    return self._encode(tf.tanh(kernel))

  def _encode(self, squashed):
    width = self.scale * tf.reduce_mean(tf.abs(squashed))
    clipped = tf.clip_by_value(tf.math.divide_no_nan(squashed, width), -0.5, 0.5)
    return tf.round((clipped + 0.5) * (2.0**self.bits - 1)), width

  @staticmethod
  def decode(levels: tf.Tensor, width: tf.Tensor | float, bits: int) -> tf.Tensor:
    """Inverts `encode` and returns exactly the weights that the student uses, bit for bit."""
    width = tf.convert_to_tensor(width)
    # Multiplies by the inverse: TensorFlow does the same to divisions by constants in graphs, but not in eager mode.
    return (tf.cast(levels, width.dtype) * (1 / (2.0**bits - 1)) - 0.5) * width

  def get_config(self) -> dict[str, Any]:
    return {"bits": self.bits, "scale": self.scale}


@keras.utils.register_keras_serializable(package="tfkd")
class LowBitFeatures(tfmot.quantization.keras.quantizers.Quantizer):
  """Clips features to [0, 1] and rounds them to 2^bits - 1 steps; the gradient passes the rounding unchanged.

  Source: Zhou et al. 2016, arXiv:1606.06160, eq. 11.

  Args:
    bits: bits of a feature, 1..7.
  """

  def __init__(self, bits: int):
    self.bits = bits

  def build(self, tensor_shape: tf.TensorShape, name: str, layer: keras.layers.Layer) -> dict[str, Any]:
    return {}

  def __call__(self, inputs: tf.Tensor, training: bool, weights: dict[str, Any], **kwargs: Any) -> tf.Tensor:
    return _rounded_features(inputs, self.bits)

  def get_config(self) -> dict[str, Any]:
    return {"bits": self.bits}


def _rounded_features(inputs: tf.Tensor, bits: int) -> Any:
  # A custom gradient, since differentiating the clip and the straight-through rounding takes three times as long.
  @tf.custom_gradient
  def rounded(x):
    clipped = tf.clip_by_value(x, 0.0, 1.0)
    return _rounded(clipped, bits), lambda gradient: gradient * tf.cast(tf.equal(x, clipped), gradient.dtype)

  return rounded(inputs)


def _rounded(x: tf.Tensor, bits: int) -> tf.Tensor:
  """Rounds x in [0, 1] to multiples of 1 / (2^bits - 1)."""
  steps = 2.0**bits - 1
  return tf.round(x * steps) / steps if bits > 1 else tf.round(x)


@keras.utils.register_keras_serializable(package="tfkd")
class LowBitConfig(KernelConfig):
  """Rounds the kernel of a layer, its output, or both.

  Args:
    kernel: name of the layer's kernel attribute; None rounds no weights.
    weight_bits: bits of a weight, see `LowBitWeights`.
    weight_scale: scale of the grid, see `LowBitWeights`.
    feature_bits: bits of the layer's output, see `LowBitFeatures`; None does not round it.
  """

  def __init__(self, kernel: str | None, weight_bits: int, weight_scale: float, feature_bits: int | None):
    super().__init__(kernel)
    self.weight_bits = weight_bits
    self.weight_scale = weight_scale
    self.feature_bits = feature_bits

  def get_weights_and_quantizers(self, layer: keras.layers.Layer) -> list[tuple[tf.Variable, LowBitWeights]]:
    if self.kernel is None:
      return []
    return [(getattr(layer, self.kernel), LowBitWeights(self.weight_bits, self.weight_scale))]

  def get_output_quantizers(self, layer: keras.layers.Layer) -> list[LowBitFeatures]:
    return [] if self.feature_bits is None else [LowBitFeatures(self.feature_bits)]

  def get_config(self) -> dict[str, Any]:
    return {
      "kernel": self.kernel,
      "weight_bits": self.weight_bits,
      "weight_scale": self.weight_scale,
      "feature_bits": self.feature_bits,
    }


def kernel_name(layer: keras.layers.Layer) -> str | None:
  """Returns the name of the attribute with the kernel of a layer, or None if the scheme rounds no weights of it."""
  # The exact class, because a subclass may have other weights.
  return _KERNELS.get(type(layer))


def is_relu(layer: keras.layers.Layer) -> bool:
  """Returns whether the layer ends in a plain ReLU, whose output is not negative and can be rounded in [0, 1]."""
  if isinstance(layer, layers.ReLU):
    return is_plain_relu(layer)
  return activation_name(getattr(layer, "activation", None)) in ("relu", "relu6")
