"""Quantization schemes: their names, the layers that they accept, and the form in which their students are exported.

`SCHEMES` is the only list of them: a new scheme is a module with a subclass of `Scheme` and one entry there.
"""

from collections.abc import Mapping

import tf_keras as keras
from tensorflow_model_optimization.python.core.quantization.keras import quantize_wrapper

from tfkd.quantization.schemes.base import Quantizer as Quantizer
from tfkd.quantization.schemes.base import Scheme as Scheme
from tfkd.quantization.schemes.base import quantizer_bits as quantizer_bits
from tfkd.quantization.schemes.by_layer import ByLayer as ByLayer
from tfkd.quantization.schemes.fixed_grid import FixedGrid as FixedGrid
from tfkd.quantization.schemes.integer import INT8 as INT8
from tfkd.quantization.schemes.integer import Int8 as Int8
from tfkd.quantization.schemes.integer import NBitWeights as NBitWeights
from tfkd.quantization.schemes.learned_step import LearnedStep as LearnedStep
from tfkd.quantization.schemes.learned_step import LearnedStepIntegers as LearnedStepIntegers

SCHEMES: tuple[type[Scheme], ...] = (Int8, NBitWeights, ByLayer, FixedGrid, LearnedStep, LearnedStepIntegers)


def parse_scheme(name: str | Mapping[str, str]) -> Scheme:
  """Returns the scheme with a name such as "w8a8", "w4a8" or "w2a1", or of a dict from layers to such names.

  Args:
    name: "w<N>a<M>" for N-bit weights and M-bit features. "w8a8" is `INT8`, "w2a8" to "w7a8" are `NBitWeights`, and
      fewer than eight feature bits are a `FixedGrid`. With "-lsq" at the end, as in "w4a4-lsq", the steps of the grids
      are trained (`LearnedStep`, and `LearnedStepIntegers` for eight feature bits). A dict from names of layers to
      "w<N>a8" is a `ByLayer`; layers that it does not name are "w8a8".

  Returns:
    Scheme.

  Raises:
    ValueError: no scheme has this name.
  """
  if isinstance(name, Mapping):
    return ByLayer.of(name)
  schemes = (scheme.parse(name) for scheme in SCHEMES) if isinstance(name, str) else ()
  found = next((scheme for scheme in schemes if scheme is not None), None)
  if found is None:
    raise ValueError(f"unknown scheme {name!r}: expected {', or '.join(scheme.forms for scheme in SCHEMES)}.")
  return found


def scheme_of(model: keras.Model) -> Scheme | None:
  """Returns the scheme that a model was quantized with.

  Args:
    model: `tf_keras` model, quantized or not.

  Returns:
    Scheme, equal to the one that `quantize` was given; None for a float model.

  Raises:
    ValueError: the model has quantizers of tfmot that belong to none of `SCHEMES`.
  """
  weights: dict[str, Quantizer] = {}
  features: list[Quantizer] = []
  for layer in model.layers:
    if isinstance(layer, quantize_wrapper.QuantizeWrapper):
      # An embedding has eight bits in every scheme; other layers have one kernel.
      if layer._weight_vars and not isinstance(layer.layer, keras.layers.Embedding):
        weights[layer.layer.name] = layer._weight_vars[0][1]
      features += layer._output_quantizers
      features += [a.quantizer for a in layer._quantize_activations if a.quantizer is not None]
  if not weights:
    return None
  read = (scheme.read(weights, features) for scheme in SCHEMES)
  found = next((scheme for scheme in read if scheme is not None), None)
  if found is None:
    bits = [sorted({quantizer_bits(quantizer) for quantizer in group}) for group in (weights.values(), features)]
    raise ValueError(
      f"model '{model.name}' has weights of {bits[0]} bits and features of {bits[1]} bits, which no scheme of "
      "tfkd.quantization combines: quantize the float model with tfkd.quantization.quantize."
    )
  return found
