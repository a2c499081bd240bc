"""Weights and features on fixed grids, for fewer than eight feature bits."""

import dataclasses
import re
from collections.abc import Collection, Mapping, Sequence
from typing import ClassVar

import tensorflow_model_optimization as tfmot
import tf_keras as keras

from tfkd.quantization.low_bit import LowBitConfig, LowBitFeatures, LowBitWeights, is_relu, kernel_name
from tfkd.quantization.lowering import ranges
from tfkd.quantization.schemes.base import ExportKind, Quantizer, Scheme

layers = keras.layers
_NO_ACTIVATION = (
  *ranges.KEEP_SIGN,
  layers.InputLayer,
  layers.Rescaling,
  layers.Normalization,
  layers.Resizing,
  layers.CenterCrop,
  layers.Subtract,
)
"""Layers without weights that keep features on their grid, or whose arithmetic a float32 file reproduces."""


@dataclasses.dataclass(frozen=True)
class FixedGrid(Scheme):
  """N-bit weights and M-bit features, M < 8, on the grids of Zhou et al. 2016 and the SVHN homework (see `low_bit`).

  Both grids are fixed, so that no calibration is needed. Dense layers without ReLU, which compute the logits, stay in
  float by default.

  Args:
    weight_bits: 1 to 8.
    feature_bits: 1 to 7.
    weight_scale: width of the weights' grid in units of mean |tanh(w)|; positive.

  Raises:
    ValueError: an argument is out of range.
  """

  weight_bits: int
  feature_bits: int
  weight_scale: float = 2.0

  forms: ClassVar[str] = '"w<N>a<M>" with N from 1 to 8 and M from 1 to 7'
  needs_calibration: ClassVar[bool] = False
  starts_from_float: ClassVar[bool] = False
  export_kind: ClassVar[ExportKind] = "pack"
  quantizes_inputs: ClassVar[bool] = False
  has_zero: ClassVar[bool] = False  # 2^N levels that are symmetric around it.

  def __post_init__(self):
    if not (1 <= self.weight_bits <= 8 and 1 <= self.feature_bits <= 7):
      raise ValueError(
        f"weight_bits must be from 1 to 8 and feature_bits from 1 to 7; got {self.weight_bits} and {self.feature_bits}."
      )
    if not self.weight_scale > 0:
      raise ValueError(f"weight_scale must be positive; got {self.weight_scale}.")

  @classmethod
  def parse(cls, name: str) -> Scheme | None:
    match = re.fullmatch(r"w([1-8])a([1-7])", name)
    return cls(int(match[1]), int(match[2])) if match else None

  @classmethod
  def read(cls, weights: Mapping[str, Quantizer], features: Sequence[Quantizer]) -> Scheme | None:
    kernels = [quantizer for quantizer in weights.values() if isinstance(quantizer, LowBitWeights)]
    feature_bits = [quantizer.bits for quantizer in features if isinstance(quantizer, LowBitFeatures)]
    return cls(kernels[0].bits, feature_bits[0], kernels[0].scale) if kernels and feature_bits else None

  def problem(self, layer: keras.layers.Layer) -> str | None:
    kernel = kernel_name(layer)
    is_normalization = isinstance(layer, layers.BatchNormalization)
    if layer.weights and not kernel and not is_normalization and not isinstance(layer, layers.Normalization):
      return (
        "its weights have no low-bit form (those of Conv2D, DepthwiseConv2D and Dense have); keep it in float with "
        "float_layers"
      )
    is_linear = getattr(layer, "activation", keras.activations.linear) is keras.activations.linear
    keeps_features = is_normalization or isinstance(layer, (*_NO_ACTIVATION, layers.Activation))
    if is_relu(layer) or is_linear and (keeps_features or kernel):
      return None
    return (
      "only the features of a plain ReLU are rounded, to steps in [0, 1]; use ReLU, or keep the layer in float with "
      "float_layers"
    )

  def model_problem(self, quantized_layers: Sequence[keras.layers.Layer]) -> str | None:
    if any(map(is_relu, quantized_layers)):
      return None
    return f"it has no ReLU, whose features {self} rounds to {self.feature_bits} bits; add one, or use w8a8"

  def default_float_layers(self, model: keras.Model) -> list[str]:
    dense = (layer for layer in model.layers if isinstance(layer, layers.Dense))
    return [layer.name for layer in dense if layer.activation is not keras.activations.relu]

  def configurations(
    self, model: keras.Model, float_layers: Collection[str]
  ) -> Mapping[str, tfmot.quantization.keras.QuantizeConfig]:
    rounded = [layer for layer in model.layers if kernel_name(layer) or is_relu(layer)]
    return {layer.name: self._config(layer, kernel_name(layer)) for layer in rounded if layer.name not in float_layers}

  def float_output(self, layer: keras.layers.Layer) -> tfmot.quantization.keras.QuantizeConfig | None:
    return self._config(layer, None) if is_relu(layer) else None

  def _config(self, layer: keras.layers.Layer, kernel: str | None) -> LowBitConfig:
    return LowBitConfig(kernel, self.weight_bits, self.weight_scale, self.feature_bits if is_relu(layer) else None)
