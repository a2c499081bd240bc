"""Eight-bit features and weights of up to eight bits: the integers that LiteRT computes in."""

import dataclasses
import functools
import re
from collections.abc import Collection, Mapping, Sequence
from typing import ClassVar

import tensorflow_model_optimization as tfmot
import tf_keras as keras
from tensorflow_model_optimization.python.core.quantization.keras.default_8bit import default_8bit_quantize_scheme
from tensorflow_model_optimization.python.core.quantization.keras.experimental.default_n_bit import (
  default_n_bit_quantize_scheme,
)

from tfkd.ops.activations import activation_name
from tfkd.quantization import placement
from tfkd.quantization.lowering import HARD_SIGMOIDS, is_split, lower
from tfkd.quantization.schemes.base import ExportKind, Quantizer, Scheme

layers = keras.layers
_ACTIVATIONS = (
  "linear",
  "relu",
  "relu6",
  "softmax",
  "sigmoid",
  "tanh",
  "swish",
  "silu",
  "hard_silu",
  "leaky_relu",
  "gelu",
  "exponential",
)
_INT4 = 4


class IntegerScheme(Scheme):
  """Base of the schemes with eight-bit features in learned ranges."""

  feature_bits = 8
  needs_calibration: ClassVar[bool] = True
  starts_from_float: ClassVar[bool] = True
  export_kind: ClassVar[ExportKind] = "tflite"
  quantizes_inputs: ClassVar[bool] = True

  def _tfmots_own(self) -> tfmot.quantization.keras.QuantizeScheme:
    """Returns tfmot's scheme, whose layer configurations `placement` adapts."""
    return default_8bit_quantize_scheme.Default8BitQuantizeScheme()

  @functools.cached_property
  def _registry(self) -> tfmot.quantization.keras.QuantizeRegistry:
    return self._tfmots_own().get_quantize_registry()

  def problem(self, layer: keras.layers.Layer) -> str | None:
    if isinstance(layer, (layers.BatchNormalization, layers.Normalization)):
      return _normalization_problem(layer) if isinstance(layer, layers.BatchNormalization) else None
    if isinstance(layer, layers.ReLU):
      return _relu_problem(layer)
    if isinstance(layer, layers.Conv2DTranspose) and self.bits_of(layer.name) <= _INT4:
      return (
        "LiteRT has no transposed convolution with int4 weights; use w5a8 or more, UpSampling2D and Conv2D, or "
        "float_layers"
      )
    return _activation_problem(layer) or _kind_problem(layer)

  def bits_of(self, layer: str) -> int:
    """Returns the bits of the weights of a layer, given by its name."""
    del layer
    return self.weight_bits

  def lower(self, model: keras.Model, float_layers: Collection[str]) -> keras.Model:
    return lower(model, float_layers)

  def forms_in_file(self, model: keras.Model, float_layers: Collection[str]) -> Mapping[str, type[keras.layers.Layer]]:
    return placement.forms_in_file(model, float_layers)

  def configurations(
    self, model: keras.Model, float_layers: Collection[str]
  ) -> Mapping[str, tfmot.quantization.keras.QuantizeConfig]:
    return placement.configurations(model, self._registry, float_layers)

  def float_output(self, layer: keras.layers.Layer) -> tfmot.quantization.keras.QuantizeConfig | None:
    return placement.float_output(layer)


@dataclasses.dataclass(frozen=True)
class Int8(IntegerScheme):
  """Eight-bit weights and features: tfmot's default scheme."""

  weight_bits: ClassVar[int] = 8
  forms: ClassVar[str] = '"w8a8"'

  @classmethod
  def parse(cls, name: str) -> Scheme | None:
    return cls() if name == "w8a8" else None

  @classmethod
  def read(cls, weights: Mapping[str, Quantizer], features: Sequence[Quantizer]) -> Scheme | None:
    return cls() if _weight_bits(weights, features) == cls.weight_bits else None


INT8 = Int8()


@dataclasses.dataclass(frozen=True)
class NBitWeights(IntegerScheme):
  """N-bit weights, N < 8, and eight-bit features: tfmot's n-bit scheme.

  Args:
    weight_bits: 2 to 7.

  Raises:
    ValueError: weight_bits is out of range.
  """

  weight_bits: int
  forms: ClassVar[str] = '"w<N>a8" with N from 2 to 7'

  def __post_init__(self):
    if not 2 <= self.weight_bits <= 7:
      raise ValueError(f"weight_bits must be from 2 to 7; got {self.weight_bits}.")

  def _tfmots_own(self) -> tfmot.quantization.keras.QuantizeScheme:
    return default_n_bit_quantize_scheme.DefaultNBitQuantizeScheme(
      num_bits_weight=self.weight_bits, num_bits_activation=self.feature_bits
    )

  @classmethod
  def parse(cls, name: str) -> Scheme | None:
    match = re.fullmatch(r"w([2-7])a8", name)
    return cls(int(match[1])) if match else None

  @classmethod
  def read(cls, weights: Mapping[str, Quantizer], features: Sequence[Quantizer]) -> Scheme | None:
    bits = _weight_bits(weights, features)
    return cls(bits) if bits is not None and 2 <= bits < 8 else None


def _weight_bits(weights: Mapping[str, Quantizer], features: Sequence[Quantizer]) -> int | None:
  """Returns the bits of all kernels; None if they differ, are not tfmot's, or features have other than eight bits."""
  bits = {getattr(quantizer, "num_bits", None) for quantizer in weights.values()}
  feature_bits = {getattr(quantizer, "num_bits", None) for quantizer in features} or {8}
  return next(iter(bits)) if len(bits) == 1 and feature_bits == {8} else None


def _normalization_problem(layer: keras.layers.BatchNormalization) -> str | None:
  axes = layer.axis if isinstance(layer.axis, (list, tuple)) else [layer.axis]
  last = layer.inbound_nodes[0].outputs.shape.rank - 1
  return None if list(axes) == [last] else f"normalizes axes {list(axes)}; only the last, {last}, has an 8-bit form"


def _kind_problem(layer: keras.layers.Layer) -> str | None:
  if hasattr(layer, "cell") or isinstance(layer, layers.Bidirectional):
    return "recurrent layers have no 8-bit form that can be trained; keep it in float with float_layers"
  if isinstance(layer, layers.PReLU) and not placement.is_supported(layer):
    return "only slopes of channels have an 8-bit form; share them along all other axes with shared_axes"
  if layer.weights and not placement.is_supported(layer):
    return "its weights have no 8-bit form; replace it, or keep it in float with float_layers"
  return None


def _relu_problem(layer: keras.layers.ReLU) -> str | None:
  if layer.threshold:
    return "a ReLU with a threshold has no 8-bit form; use one without"
  if layer.max_value not in (None, 6.0) or layer.max_value and layer.negative_slope:
    return (
      f"LiteRT has no ReLU of max_value={layer.max_value} and negative_slope={layer.negative_slope}; use ReLU(), "
      "ReLU(6.0) or LeakyReLU"
    )
  return None


def _activation_problem(layer: keras.layers.Layer) -> str | None:
  activation = getattr(layer, "activation", None)
  if activation is None:
    return None
  name = activation_name(activation)
  if name not in _ACTIVATIONS and activation not in HARD_SIGMOIDS:
    return f"activation {name} has no 8-bit form; use one of {', '.join(_ACTIVATIONS)}"
  if is_split(layer) and layer.activity_regularizer is not None:
    return (
      f"its activation {name} becomes a layer without the activity_regularizer; remove the regularizer and add "
      "ActivityRegularization(l1, l2) after the layer"
    )
  return None
