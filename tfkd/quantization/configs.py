"""Which tensors of a layer are rounded, for layers that tfmot has no `QuantizeConfig` for."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras as keras

quantizers = tfmot.quantization.keras.quantizers
_register = keras.saving.register_keras_serializable(package="tfkd")
_BITS = 8


@_register
class FixedRange(quantizers.Quantizer):
  """Rounds features to eight bits in a constant range, as LiteRT's sigmoid and softmax do; clips others to it.

  Args:
    low, high: range that contains 0.
  """

  num_bits = _BITS

  def __init__(self, low: float, high: float):
    self.low, self.high = low, high

  def build(self, tensor_shape: Any, name: str, layer: keras.layers.Layer) -> dict[str, Any]:
    return {}

  def __call__(self, inputs: tf.Tensor, training: bool, weights: dict[str, Any], **kwargs: Any) -> tf.Tensor:
    return tf.quantization.fake_quant_with_min_max_args(inputs, self.low, self.high, num_bits=_BITS)

  def get_config(self) -> dict[str, Any]:
    return {"low": self.low, "high": self.high}


class KernelConfig(tfmot.quantization.keras.QuantizeConfig):
  """Base of configurations that round at most one weight of a layer, and its output rather than its activation.

  Args:
    kernel: name of the layer's attribute with the weight; None rounds no weights.
  """

  def __init__(self, kernel: str | None = None):
    self.kernel = kernel

  def get_weights_and_quantizers(self, layer: keras.layers.Layer) -> list:
    return []

  def set_quantize_weights(self, layer: keras.layers.Layer, quantize_weights: Sequence[tf.Tensor]) -> None:
    for weight in quantize_weights:
      setattr(layer, str(self.kernel), weight)

  def get_activations_and_quantizers(self, layer: keras.layers.Layer) -> list:
    return []

  def set_quantize_activations(self, layer: keras.layers.Layer, quantize_activations: Sequence[Any]) -> None:
    pass

  def get_output_quantizers(self, layer: keras.layers.Layer) -> list:
    return []


@_register
class OutputConfig(KernelConfig):
  """Rounds the output of a layer to eight bits.

  Args:
    fixed_range: constant range, see `FixedRange`; None for a range that follows the data.
  """

  def __init__(self, fixed_range: Sequence[float] | None = None):
    super().__init__()
    self.fixed_range = None if fixed_range is None else list(fixed_range)

  def get_output_quantizers(self, layer: keras.layers.Layer) -> list:
    if self.fixed_range is not None:
      return [FixedRange(*self.fixed_range)]
    return [quantizers.MovingAverageQuantizer(num_bits=_BITS, per_axis=False, symmetric=False, narrow_range=False)]

  def get_config(self) -> dict[str, Any]:
    return {"fixed_range": self.fixed_range}


@_register
class WeightConfig(KernelConfig):
  """Rounds one weight of a layer with one scale; the output is not rounded, since its values are entries of the weight.

  Args:
    attribute: name of the layer's attribute with the weight.
    bits: bits of the weight.
  """

  def __init__(self, attribute: str, bits: int):
    super().__init__(attribute)
    self.bits = bits

  def get_weights_and_quantizers(self, layer: keras.layers.Layer) -> list:
    quantizer = quantizers.LastValueQuantizer(num_bits=self.bits, per_axis=False, symmetric=True, narrow_range=True)
    return [(getattr(layer, str(self.kernel)), quantizer)]

  def get_config(self) -> dict[str, Any]:
    return {"attribute": self.kernel, "bits": self.bits}


for _kind in (FixedRange, OutputConfig, WeightConfig):
  keras.saving.get_custom_objects()[_kind.__name__] = _kind  # For HDF5 files.
