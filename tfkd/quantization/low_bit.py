"""Weights and features below eight bits, as a tfmot scheme (Zhou et al. 2016, arXiv:1606.06160, and the SVHN homework).

tfmot's own n-bit scheme keeps features at eight bits and learns ranges by moving averages; here both grids are fixed,
so nothing needs calibration and two bits of weight with one bit of feature train from scratch.
"""

from typing import Any

import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras as keras

from tfkd.quantization.decompose import activation_name, is_plain_relu

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
  clipped; were their gradient zero, they would never come back.

  Args:
    bits: bits of a weight, 1..8.
    scale: full width of the grid in units of mean |tanh(w)|, > 0.
  """

  def __init__(self, bits: int, scale: float):
    self.bits = bits
    self.scale = scale

  def build(self, tensor_shape: Any, name: str, layer: keras.layers.Layer) -> dict[str, Any]:
    return {}

  def __call__(self, inputs, training, weights, **kwargs):
    squashed = tf.tanh(inputs)
    rounded = self.decode(*self._encode(squashed), self.bits)
    # The value to the last bit, with the gradient of what was rounded.
    return tf.stop_gradient(rounded) + (squashed - tf.stop_gradient(squashed))

  def encode(self, kernel: tf.Tensor) -> tuple[Any, Any]:
    """The levels of a kernel's weights, whole numbers in [0, 2^bits - 1] as float32, and the width s of the grid."""
    return self._encode(tf.tanh(kernel))

  def _encode(self, squashed):
    width = self.scale * tf.reduce_mean(tf.abs(squashed))
    clipped = tf.clip_by_value(tf.math.divide_no_nan(squashed, width), -0.5, 0.5)
    return tf.round((clipped + 0.5) * (2.0**self.bits - 1)), width

  @staticmethod
  def decode(levels: Any, width: Any, bits: int) -> Any:
    """The weights of levels, to the last bit those that the student computes with."""
    width = tf.convert_to_tensor(width)
    # Times the inverse: TensorFlow makes that of a division by a constant in graphs, and there alone.
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

  def build(self, tensor_shape: Any, name: str, layer: keras.layers.Layer) -> dict[str, Any]:
    return {}

  def __call__(self, inputs, training, weights, **kwargs):
    return _rounded_features(inputs, self.bits)

  def get_config(self) -> dict[str, Any]:
    return {"bits": self.bits}


def _rounded_features(inputs, bits):
  # Features are large: automatic differentiation of a clip and a straight-through rounding takes three times as long.
  @tf.custom_gradient
  def rounded(x):
    clipped = tf.clip_by_value(x, 0.0, 1.0)
    return _rounded(clipped, bits), lambda gradient: gradient * tf.cast(tf.equal(x, clipped), gradient.dtype)

  return rounded(inputs)


def _rounded(x, bits):
  """Rounds x in [0, 1] to multiples of 1 / (2^bits - 1)."""
  steps = 2.0**bits - 1
  return tf.round(x * steps) / steps if bits > 1 else tf.round(x)


@keras.utils.register_keras_serializable(package="tfkd")
class LowBitConfig(tfmot.quantization.keras.QuantizeConfig):
  """Which tensors of one layer are rounded: its kernel, its output, or both.

  Args:
    kernel: name of the layer's kernel attribute, or None to leave weights alone.
    weight_bits, weight_scale: see `LowBitWeights`.
    feature_bits: bits of the layer's output (see `LowBitFeatures`), or None to leave it alone.
  """

  def __init__(self, kernel, weight_bits, weight_scale, feature_bits):
    self.kernel = kernel
    self.weight_bits = weight_bits
    self.weight_scale = weight_scale
    self.feature_bits = feature_bits

  def get_weights_and_quantizers(self, layer):
    if self.kernel is None:
      return []
    return [(getattr(layer, self.kernel), LowBitWeights(self.weight_bits, self.weight_scale))]

  def set_quantize_weights(self, layer, quantize_weights):
    for weight in quantize_weights:
      setattr(layer, self.kernel, weight)

  def get_activations_and_quantizers(self, layer):
    return []

  def set_quantize_activations(self, layer, quantize_activations):
    pass

  def get_output_quantizers(self, layer):
    return [] if self.feature_bits is None else [LowBitFeatures(self.feature_bits)]

  def get_config(self):
    return {
      "kernel": self.kernel,
      "weight_bits": self.weight_bits,
      "weight_scale": self.weight_scale,
      "feature_bits": self.feature_bits,
    }


class LowBitScheme(tfmot.quantization.keras.QuantizeScheme):
  """Kernels of convolutions and dense layers at `weight_bits`, outputs of ReLU at `feature_bits`.

  Batch normalisation stays in float between the two, as it folds into the thresholds of the next rounding.
  """

  def __init__(self, weight_bits, feature_bits, weight_scale):
    self._registry = _LowBitRegistry(weight_bits, feature_bits, weight_scale)

  def get_layout_transformer(self):
    return _KeepLayout()

  def get_quantize_registry(self):
    return self._registry


class _LowBitRegistry(tfmot.quantization.keras.QuantizeRegistry):
  def __init__(self, weight_bits, feature_bits, weight_scale):
    self._weight_bits = weight_bits
    self._feature_bits = feature_bits
    self._weight_scale = weight_scale

  def supports(self, layer):
    return kernel_name(layer) is not None or is_relu(layer)

  def get_quantize_config(self, layer):
    feature_bits = self._feature_bits if is_relu(layer) else None
    return LowBitConfig(kernel_name(layer), self._weight_bits, self._weight_scale, feature_bits)


class _KeepLayout(tfmot.quantization.keras.QuantizeLayoutTransform):
  def apply(self, model, layer_quantize_map):
    return model, layer_quantize_map


def kernel_name(layer: keras.layers.Layer) -> str | None:
  """Name of the attribute that holds the layer's kernel, or None where this scheme rounds none."""
  # The exact class: a subclass may keep its weights elsewhere.
  return _KERNELS.get(type(layer))


def is_relu(layer: keras.layers.Layer) -> bool:
  """Whether the layer's output is a plain ReLU's, never negative, on which features can be rounded in [0, 1]."""
  if isinstance(layer, layers.ReLU):
    return is_plain_relu(layer)
  return activation_name(getattr(layer, "activation", None)) in ("relu", "relu6")
