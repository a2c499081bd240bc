"""Eight-bit features, and weights whose bits differ from layer to layer."""

import dataclasses
import re
from collections.abc import Collection, Mapping, Sequence
from typing import ClassVar

import tensorflow_model_optimization as tfmot
import tf_keras as keras

from tfkd.quantization import placement
from tfkd.quantization.schemes.base import Quantizer, Scheme
from tfkd.quantization.schemes.integer import INT8, IntegerScheme, NBitWeights

_LOWERED = re.compile(r"(_(linear|depthwise|product|query|key|value))+$")
"""Ends of the names that parts of a layer get when it is lowered."""


@dataclasses.dataclass(frozen=True)
class ByLayer(IntegerScheme):
  """N-bit weights in some layers, and `w8a8` in the others.

  Args:
    layers: pairs of the name of a layer and the bits of its weights, 2 to 7. The name of a nested model stands for all
      of its layers.

  Raises:
    ValueError: bits are out of range, or a layer is named twice.
  """

  layers: tuple[tuple[str, int], ...]

  weight_bits: ClassVar[int] = 8
  forms: ClassVar[str] = 'a dict from names of layers to "w<N>a8" with N from 2 to 8'

  def __post_init__(self):
    object.__setattr__(self, "layers", tuple(sorted((str(name), int(bits)) for name, bits in self.layers)))
    names = [name for name, _ in self.layers]
    if len({*names}) < len(names) or not all(2 <= bits <= 7 for _, bits in self.layers):
      raise ValueError(f"layers must be named once, with 2 to 7 bits each; got {self.layers}.")

  @classmethod
  def of(cls, schemes: Mapping[str, str]) -> Scheme:
    """Returns the scheme of a dict from names of layers to the names of their schemes.

    Raises:
      ValueError: a scheme is not "w<N>a8" with N from 2 to 8.
    """
    bits = {}
    for layer, name in schemes.items():
      match = re.fullmatch(r"w([2-8])a8", str(name))
      if match is None:
        raise ValueError(f"layer '{layer}' has scheme {name!r}: schemes by layer must be w2a8 to w8a8.")
      bits[layer] = int(match[1])
    lower = tuple((layer, of_layer) for layer, of_layer in bits.items() if of_layer < INT8.weight_bits)
    return cls(lower) if lower else INT8

  @classmethod
  def parse(cls, name: str) -> Scheme | None:
    match = re.fullmatch(r"w8a8\((.+)\)", name)
    parts = [part.rpartition("=") for part in match[1].split(", ")] if match else []
    return cls.of({layer: scheme for layer, _, scheme in parts}) if parts else None

  @classmethod
  def read(cls, weights: Mapping[str, Quantizer], features: Sequence[Quantizer]) -> Scheme | None:
    if not all(hasattr(quantizer, "num_bits") for quantizer in weights.values()):  # Not tfmot's.
      return None
    lower = tuple((name, q.num_bits) for name, q in weights.items() if q.num_bits < INT8.weight_bits)
    is_integer = all(getattr(quantizer, "num_bits", None) == cls.feature_bits for quantizer in features)
    return cls(lower) if lower and is_integer else None

  def bits_of(self, layer: str) -> int:
    found = dict(self.layers)
    candidates = [layer, _LOWERED.sub("", layer)]
    candidates += [layer[: match.start()] for match in re.finditer("/", layer)][::-1]
    return next((found[name] for name in candidates if name in found), self.weight_bits)

  def model_problem(self, quantized_layers: Sequence[keras.layers.Layer]) -> str | None:
    kernels = [layer.name for layer in quantized_layers if any(w.shape.rank > 1 for w in layer.weights)]
    for name, _ in self.layers:
      # A scheme that was read from a model names the parts of lowered layers.
      of_part = _LOWERED.sub("", name)
      if not any(kernel in (name, of_part) or kernel.startswith(f"{name}/") for kernel in kernels):
        return f"the scheme names '{name}', and the layers with kernels that are quantized are {', '.join(kernels)}"
    return None

  def configurations(
    self, model: keras.Model, float_layers: Collection[str]
  ) -> Mapping[str, tfmot.quantization.keras.QuantizeConfig]:
    schemes: Mapping[int, IntegerScheme] = {bits: NBitWeights(bits) for _, bits in self.layers} | {8: INT8}
    by_bits = {
      bits: placement.configurations(model, scheme._registry, float_layers) for bits, scheme in schemes.items()
    }
    return {name: by_bits[self.bits_of(name)][name] for name in by_bits[self.weight_bits]}

  def __str__(self) -> str:
    return f"w8a8({', '.join(f'{name}=w{bits}a8' for name, bits in self.layers)})"
