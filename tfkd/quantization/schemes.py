"""Names of schemes, and the step from a float model to a quantization-aware one."""

import contextlib
import re
from typing import NamedTuple

import tensorflow_model_optimization as tfmot
import tf_keras as keras
from absl import logging
from tensorflow_model_optimization.python.core.quantization.keras import quantize_wrapper
from tensorflow_model_optimization.python.core.quantization.keras.default_8bit import default_8bit_quantize_scheme
from tensorflow_model_optimization.python.core.quantization.keras.experimental.default_n_bit import (
  default_n_bit_quantize_scheme,
)

from tfkd.ops import graph
from tfkd.quantization import placement
from tfkd.quantization.calibration import calibrate
from tfkd.quantization.decompose import decompose
from tfkd.quantization.export_check import check_export
from tfkd.quantization.low_bit import LowBitScheme
from tfkd.quantization.preflight import check_quantizable
from tfkd.quantization.wrappers import make_saveable, set_kernel_ranges

WEIGHT_SCALE = 2.0


class Bits(NamedTuple):
  """Bits of a weight and of a feature."""

  weights: int
  features: int

  @property
  def is_low(self):
    """Whether features have fewer than eight bits: the fixed grids of `low_bit`, not tfmot's learned ranges."""
    return self.features < 8

  def __str__(self):
    return f"w{self.weights}a{self.features}"


def parse_scheme(name):
  """Reads a scheme's name, such as "w8a8", "w4a8" or "w2a1".

  Args:
    name: "w<N>a<M>" for N-bit weights and M-bit features. `w8a8`: tfmot's default scheme; `w2a8` to `w7a8`: tfmot's
      n-bit scheme; M < 8: `tfkd.quantization.LowBitScheme`.

  Returns:
    Bits.

  Raises:
    ValueError: no such scheme.
  """
  match = re.fullmatch(r"w([1-8])a([1-8])", name) if isinstance(name, str) else None
  if not match or name == "w1a8":
    raise ValueError(
      f'unknown scheme {name!r}: expected "w<N>a<M>" with N bits of weight and M of feature, 1 to 8 each, for example '
      '"w8a8", "w4a8" or "w2a1" (with 8-bit features, weights have at least 2 bits).'
    )
  return Bits(int(match[1]), int(match[2]))


def quantize(model, scheme, *, calibration_data=None, float_layers=None, weight_scale=WEIGHT_SCALE):
  """Makes a quantization-aware student from a float model.

  The copy starts from the model's weights and is trained like any Keras model; quantization is simulated in float32,
  and gradients pass it straight through. Layers that are quantized are renamed `quant_<name>` by tfmot. Frozen layers
  stay frozen.

  `tfkd.deploy.to_tflite` exports what this function accepts: a network with other layers than the usual ones of image
  classifiers is converted once, untrained, to find out. That takes a few seconds, once in a process for each network.

  Args:
    model: built functional or `Sequential` `tf_keras` model, float32; it is not changed.
    scheme: name as for `parse_scheme`.
    calibration_data: inputs in any form that `model.fit` takes (see `calibrate`), to set the ranges before the first
      step. Without them, 8-bit features start at [-6, 6] and inference is wrong until the ranges have been trained.
      Schemes with fewer than eight feature bits have fixed ranges and ignore it.
    float_layers: names of layers to leave in float. By default none for 8-bit features, and for fewer bits the dense
      layers without ReLU, which give the logits.
    weight_scale: for fewer than eight feature bits, the width of the weights' grid in units of mean |tanh(w)|.

  Returns:
    A new `tf_keras` model.

  Raises:
    ValueError: unknown scheme; layers that the scheme cannot quantize, all named with what to do; or a network that
      TensorFlow's converter does not bring to integers.
  """
  bits = parse_scheme(scheme)
  quantized = _uncalibrated(model, bits, float_layers, weight_scale)
  if not bits.is_low:
    if calibration_data is None:
      logging.warning("%s has uncalibrated ranges of [-6, 6]: pass calibration_data to quantize().", quantized.name)
    else:
      calibrate(quantized, calibration_data)
  return quantized


def check(model, scheme):
  """Raises the error that `quantize` would, for callers that have other work to do before it.

  Args:
    model, scheme: see `quantize`.

  Raises:
    ValueError: see `quantize`.
  """
  _uncalibrated(model, parse_scheme(scheme), None, WEIGHT_SCALE)


def _uncalibrated(model, bits, float_layers, weight_scale):
  """A quantized copy that is known to convert, with tfmot's first ranges."""
  if not weight_scale > 0:
    raise ValueError(f"weight_scale must be positive; got {weight_scale}.")
  tfmot_scheme = _tfmot_scheme(bits, weight_scale)
  if float_layers is None:
    float_layers = _logits_layers(model) if bits.is_low else ()
  check_quantizable(model, bits, tfmot_scheme.get_quantize_registry(), float_layers)
  with _float32_policy():  # The global policy is the teacher's.
    quantized, expected = _rounded(model, bits, tfmot_scheme, float_layers)
  _check_kernels(quantized, expected, float_layers)
  if not placement.is_known(model):
    check_export(quantized, bits, allow_float=bool(float_layers))
  return quantized


def _rounded(model, bits, tfmot_scheme, float_layers):
  """The quantized model, uncalibrated, and the float layers that it was made of."""
  registry = tfmot_scheme.get_quantize_registry()
  if bits.is_low:
    configs = {layer.name: registry.get_quantize_config(layer) for layer in model.layers if registry.supports(layer)}
  else:
    model = decompose(model, {*placement.absorbed(model), *float_layers})
    configs = placement.configurations(model, registry)
    tfmot_scheme = placement.Integers(registry)

  def annotate(layer):
    new = graph.copy_of(layer)
    is_rounded = layer.name in configs and layer.name not in float_layers
    return tfmot.quantization.keras.quantize_annotate_layer(new, configs[layer.name]) if is_rounded else new

  annotated = keras.models.clone_model(model, clone_function=annotate)
  annotated.set_weights(model.get_weights())
  with tfmot.quantization.keras.quantize_scope():
    quantized = make_saveable(tfmot.quantization.keras.quantize_apply(annotated, tfmot_scheme))
  set_kernel_ranges(quantized)
  return quantized, model.layers


def _check_kernels(quantized, layers, float_layers):
  """Raises where a matrix or kernel is trained in float without having been named."""
  rounded = {
    layer.layer.name: {id(weight) for weight, _, _ in layer._weight_vars}
    for layer in quantized.layers
    if isinstance(layer, quantize_wrapper.QuantizeWrapper)
  }
  for layer in layers:
    kernels = sum(weight.shape.rank > 1 for weight in layer.weights)
    if layer.name not in float_layers and kernels != len(rounded.get(layer.name, ())):
      raise ValueError(
        f"layer '{layer.name}' ({type(layer).__name__}) has {kernels} kernels, of which "
        f"{len(rounded.get(layer.name, ()))} are rounded in training: keep it in float with float_layers."
      )


@contextlib.contextmanager
def _float32_policy():
  policy = keras.mixed_precision.global_policy()
  keras.mixed_precision.set_global_policy("float32")
  try:
    yield
  finally:
    keras.mixed_precision.set_global_policy(policy)


def scheme_of(model):
  """Reads the scheme back from a model's layers.

  Args:
    model: `tf_keras` model, quantized or not.

  Returns:
    Bits, or None for a float model.
  """
  weights, features = set(), set()
  for layer in model.layers:
    if isinstance(layer, quantize_wrapper.QuantizeWrapper):
      weights |= {weight_bits(quantizer) for _, quantizer, _ in layer._weight_vars}
      features |= {weight_bits(quantizer) for quantizer in layer._output_quantizers}
      features |= {weight_bits(a.quantizer) for a in layer._quantize_activations if a.quantizer is not None}
  if not weights:
    return None
  return Bits(max(weights), max(features) if features else 8)


def weight_bits(quantizer):
  """Bits that a tfmot or tfkd quantizer rounds to."""
  return getattr(quantizer, "bits", None) or quantizer.num_bits


def _tfmot_scheme(bits, weight_scale):
  if bits.is_low:
    return LowBitScheme(bits.weights, bits.features, weight_scale)
  if bits.weights == 8:
    return default_8bit_quantize_scheme.Default8BitQuantizeScheme()
  return default_n_bit_quantize_scheme.DefaultNBitQuantizeScheme(num_bits_weight=bits.weights, num_bits_activation=8)


def _logits_layers(model):
  """Names of dense layers whose outputs are not rounded to [0, 1]."""
  dense = (layer for layer in model.layers if isinstance(layer, keras.layers.Dense))
  return [layer.name for layer in dense if layer.activation is not keras.activations.relu]
