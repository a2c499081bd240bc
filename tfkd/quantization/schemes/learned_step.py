"""Weights and features whose steps are trained with the network."""

import dataclasses
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar

import tensorflow_model_optimization as tfmot
import tf_keras as keras

from tfkd.ops import graph
from tfkd.ops.activations import activation_name
from tfkd.quantization.learned_quantizers import LearnedKernelConfig, LearnedStepConfig, LearnedStepWeights
from tfkd.quantization.lowering import is_plain_relu, primitives, ranges
from tfkd.quantization.placement import has_one_float_output
from tfkd.quantization.schemes.base import ExportKind, Quantizer, Scheme
from tfkd.quantization.schemes.integer import IntegerScheme

layers = keras.layers
_KERNELS = {  # Attribute with the kernel, and its axes that are channels of the output.
  layers.Conv1D: ("kernel", (-1,)),
  layers.Conv2D: ("kernel", (-1,)),
  layers.Conv3D: ("kernel", (-1,)),
  layers.Conv1DTranspose: ("kernel", (-2,)),
  layers.Conv2DTranspose: ("kernel", (-2,)),
  layers.Conv3DTranspose: ("kernel", (-2,)),
  layers.DepthwiseConv1D: ("depthwise_kernel", (-2, -1)),
  layers.DepthwiseConv2D: ("depthwise_kernel", (-2, -1)),
  layers.Dense: ("kernel", (-1,)),
}
_KEEPS_INPUTS = (
  *ranges.IDENTITY_IN_INFERENCE,
  *ranges.REARRANGEMENTS,
  layers.InputLayer,
  layers.Rescaling,
  layers.Normalization,
  primitives.ConstantAffine,  # What these two become in integers.
  layers.Resizing,
  layers.CenterCrop,
)
"""Layers whose outputs, read from the model's inputs, are still its inputs."""
_KEEPS_SIGN = (*ranges.KEEP_SIGN, layers.Multiply)
_NEVER_NEGATIVE = ("relu", "relu6", "sigmoid", "softmax", "hard_sigmoid", "softplus", "exponential")


class _Learned(Scheme):
  """What the schemes with trained steps share: their names, which their quantizers contain."""

  outer_bits: int

  @classmethod
  def read(cls, weights: Mapping[str, Quantizer], features: Sequence[Quantizer]) -> Scheme | None:
    return next((cls.parse(q.scheme) for q in weights.values() if isinstance(q, LearnedStepWeights)), None)

  def __str__(self) -> str:
    return f"{super().__str__()}-lsq" + (f"(outer_bits={self.outer_bits})" if self.outer_bits != 8 else "")


@dataclasses.dataclass(frozen=True)
class LearnedStep(_Learned):
  """N-bit weights and M-bit features, M < 8, with trained steps (LSQ, LSQ+; see `learned_step`).

  The inputs of layers with kernels are rounded, after any activation; sums of residual blocks that no kernel reads are
  not. Batch normalization stays a layer of its own in float32: between an integer sum and the next rounding it is one
  scale and offset for each channel, which hardware merges with the steps, and folding it into the kernel would move
  the kernel's grid with the statistics of each batch.

  Args:
    weight_bits: 2 to 8.
    feature_bits: 1 to 7.
    outer_bits: bits of the kernels of the first and of the last layer, and of the features that they read, at least
      those of the others. The model's inputs stay as they are: pixels have eight bits already.

  Raises:
    ValueError: an argument is out of range.
  """

  weight_bits: int
  feature_bits: int
  outer_bits: int = 8

  forms: ClassVar[str] = '"w<N>a<M>-lsq" with N from 2 to 8 and M from 1 to 7'
  needs_calibration: ClassVar[bool] = True
  starts_from_float: ClassVar[bool] = True
  export_kind: ClassVar[ExportKind] = "pack"
  quantizes_inputs: ClassVar[bool] = False

  def __post_init__(self):
    if not (2 <= self.weight_bits <= 8 and 1 <= self.feature_bits <= 7):
      raise ValueError(
        f"weight_bits must be from 2 to 8 and feature_bits from 1 to 7; got {self.weight_bits} and {self.feature_bits}."
      )
    if not max(self.weight_bits, self.feature_bits) <= self.outer_bits <= 8:
      raise ValueError(
        f"outer_bits must be from {max(self.weight_bits, self.feature_bits)}, the bits of the other layers, to 8; got "
        f"{self.outer_bits}."
      )

  @classmethod
  def parse(cls, name: str) -> "LearnedStep | None":
    match = re.fullmatch(r"w([2-8])a([1-7])-lsq(?:\(outer_bits=([2-8])\))?", name)
    return cls(int(match[1]), int(match[2]), int(match[3] or 8)) if match else None

  def problem(self, layer: keras.layers.Layer) -> str | None:
    is_known = type(layer) in _KERNELS or isinstance(layer, (layers.BatchNormalization, layers.Normalization))
    if any(weight.shape.rank > 1 for weight in layer.weights) and not is_known:
      kinds = ", ".join(kind.__name__ for kind in _KERNELS)
      return f"its weights have no form with trained steps (those of {kinds} have); keep it in float with float_layers"
    return None

  def configurations(
    self, model: keras.Model, float_layers: Collection[str]
  ) -> Mapping[str, tfmot.quantization.keras.QuantizeConfig]:
    read_by, read_from = graph.readers(model), graph.producers(model)
    kernels = [layer.name for layer in model.layers if type(layer) in _KERNELS and layer.name not in float_layers]
    outer = _first(model, read_from, kernels) | _last(model, read_from, kernels)
    found = {}
    for layer in model.layers:
      readers = {r.name for tensors in read_by[layer.name] for r in tensors if r is not None and r.name in kernels}
      weights = features = None
      if layer.name in kernels:
        weights = self._weights(layer, self.outer_bits if layer.name in outer else self.weight_bits)
      if readers and not isinstance(layer, layers.InputLayer):
        if not has_one_float_output(layer):
          raise ValueError(
            f"layer '{layer.name}' has several outputs that {', '.join(sorted(readers))} read, and one step rounds one "
            "output: follow each output with keras.layers.Activation('linear')."
          )
        bits = self.outer_bits if readers <= outer else self.feature_bits
        features = {"bits": bits, "is_signed": not _is_never_negative(layer, read_from), "scheme": str(self)}
      if weights or features:
        kernel = _KERNELS[type(layer)][0] if weights else None
        found[layer.name] = LearnedStepConfig(kernel, weights, features)
    return found

  def _weights(self, layer: keras.layers.Layer, bits: int) -> dict[str, Any]:
    return {"bits": bits, "axes": _KERNELS[type(layer)][1], "is_symmetric": False, "scheme": str(self)}


def _first(model: keras.Model, read_from: Mapping[str, list], kernels: Sequence[str]) -> set[str]:
  """Returns the names of the layers with kernels that read the model's inputs."""
  inputs: set[str] = {tensor._keras_history.layer.name for tensor in model.inputs}
  for layer in (node.layer for node in graph.calls(model)):
    if isinstance(layer, _KEEPS_INPUTS) and all(producer.name in inputs for producer in read_from[layer.name]):
      inputs.add(layer.name)
  return {name for name in kernels if any(producer.name in inputs for producer in read_from[name])}


def _last(model: keras.Model, read_from: Mapping[str, list], kernels: Sequence[str]) -> set[str]:
  """Returns the names of the layers with kernels behind which no other is."""
  found: set[str] = set()
  seen: set[str] = set()
  pending = [tensor._keras_history.layer for tensor in model.outputs]
  while pending:
    layer = pending.pop()
    if layer.name in kernels:
      found.add(layer.name)
    elif layer.name not in seen:
      seen.add(layer.name)
      pending += read_from.get(layer.name, [])
  return found


def _is_never_negative(layer: keras.layers.Layer, read_from: Mapping[str, list]) -> bool:
  """Returns whether the outputs of a layer cannot be negative, whatever its weights are."""
  if isinstance(layer, _KEEPS_SIGN):
    return all(_is_never_negative(producer, read_from) for producer in read_from[layer.name])
  activation = getattr(layer, "activation", None)
  is_softmax = isinstance(layer, layers.Softmax)
  return is_softmax or is_plain_relu(layer) or activation is not None and activation_name(activation) in _NEVER_NEGATIVE


@dataclasses.dataclass(frozen=True)
class LearnedStepIntegers(_Learned, IntegerScheme):
  """N-bit weights with trained steps (LSQ), and the eight-bit features of `w8a8`: the integers of LiteRT.

  The ranges of features are moving averages, as in `w8a8`: the share of values that 255 steps clip is too small for a
  step to learn from. Kernels have a step for each output channel where LiteRT has a scale for each, else one.
  Batch normalization is folded into the kernel when the file is written: each channel has a step of its own, so that
  this changes the steps and not the levels.

  Args:
    weight_bits: 2 to 8.
    outer_bits: bits of the kernels of the first and of the last layer, weight_bits to 8.

  Raises:
    ValueError: an argument is out of range.
  """

  weight_bits: int
  outer_bits: int = 8

  forms: ClassVar[str] = '"w<N>a8-lsq"'

  def __post_init__(self):
    if not 2 <= self.weight_bits <= self.outer_bits <= 8:
      raise ValueError(
        f"weight_bits and outer_bits must be from 2 to 8, and outer_bits not less; got {self.weight_bits} and "
        f"{self.outer_bits}."
      )

  @classmethod
  def parse(cls, name: str) -> "LearnedStepIntegers | None":
    match = re.fullmatch(r"w([2-8])a8-lsq(?:\(outer_bits=([2-8])\))?", name)
    return cls(int(match[1]), int(match[2] or 8)) if match else None

  def configurations(
    self, model: keras.Model, float_layers: Collection[str]
  ) -> Mapping[str, tfmot.quantization.keras.QuantizeConfig]:
    found = dict(super().configurations(model, float_layers))
    kernels = [name for name, config in found.items() if getattr(config, "weight_attrs", None)]
    read_from = graph.producers(model)
    outer = _first(model, read_from, kernels) | _last(model, read_from, kernels)
    for name in kernels:
      bits = self.outer_bits if name in outer else self.weight_bits
      found[name] = LearnedKernelConfig(found[name], {"bits": bits, "is_symmetric": True, "scheme": str(self)})
    return found
