"""From a float model to a quantization-aware one."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tf_keras as keras
from absl import logging
from tensorflow_model_optimization.python.core.quantization.keras import quantize_wrapper

from tfkd.keras3 import as_tf_keras
from tfkd.ops._flatten import flatten
from tfkd.quantization import placement
from tfkd.quantization.calibration import calibrate
from tfkd.quantization.export_check import check_export
from tfkd.quantization.preflight import check_model, check_quantizable, check_zeros, expanded
from tfkd.quantization.pruned import describe, zeros_of
from tfkd.quantization.schemes import Scheme, parse_scheme
from tfkd.quantization.wrappers import set_kernel_ranges, wrapped


def quantize(
  model: keras.Model,
  scheme: str | Mapping[str, str] | Scheme,
  *,
  calibration_data: Any = None,
  float_layers: Sequence[str] | None = None,
  keep_zeros: bool = True,
) -> keras.Model:
  """Returns a quantization-aware copy of a float model.

  Nested models are flattened (see `tfkd.models.flatten`), and layers that an integer file computes with several
  operations are replaced by as many layers, the last of which has the name of the original.

  The copy starts from the model's weights and is trained like any Keras model; quantization is simulated in float32,
  and gradients pass it straight through. Layers that are quantized are renamed `quant_<name>` by tfmot. Frozen layers
  stay frozen.

  `tfkd.deploy.to_tflite` exports what this function accepts: a network with layers other than the usual ones of image
  classifiers is converted once, untrained, to find out. That takes a few seconds, once in a process for each network.

  Args:
    model: built functional or `Sequential` `tf_keras` model, float32; it is not changed. One of Keras 3 is converted by
      `tfkd.from_keras3`.
    scheme: name as for `parse_scheme`, such as "w4a8"; a dict from names of layers to names, such as {"conv1": "w4a8"},
      whose other layers are "w8a8" (see `bits_by_layer`); or a `Scheme`.
    calibration_data: inputs in any form that `model.fit` takes (see `calibrate`), to set the ranges before the first
      step. Without them, 8-bit features start at [-6, 6] and inference is wrong until the ranges have been trained.
      Schemes with fixed grids ignore it.
    float_layers: names of layers to leave in float. None stands for the scheme's default: no layer for 8-bit features,
      and for fewer bits the dense layers without ReLU, which compute the logits.
    keep_zeros: whether pruned kernels, of which a tenth or more but not all is exactly 0, keep these zeros in every
      step of training, whatever the optimizer; float layers too, but not in the moving averages of weights at the end
      of a plain Keras fit with `use_ema`. The positions are saved with the model.

  Returns:
    A new `tf_keras` model.

  Raises:
    ValueError: the scheme is unknown; the scheme cannot quantize some layers, all named with what to do; it has no
      level for zeros that are kept; or TensorFlow cannot convert the network to integers.
  """
  model, scheme = as_tf_keras(model, "model"), _scheme(scheme)
  quantized = _uncalibrated(model, scheme, float_layers, keep_zeros)
  if keep_zeros:
    describe(quantized)
  if scheme.needs_calibration:
    if calibration_data is None:
      logging.warning("%s has uncalibrated ranges of [-6, 6]: pass calibration_data to quantize().", quantized.name)
    else:
      calibrate(quantized, calibration_data)
  return quantized


def check(model: keras.Model, scheme: str | Mapping[str, str] | Scheme) -> None:
  """Raises the error that `quantize` would raise, for callers with other work to do before quantization.

  Args:
    model, scheme: see `quantize`.

  Raises:
    ValueError: see `quantize`.
  """
  _uncalibrated(as_tf_keras(model, "model"), _scheme(scheme), None, keep_zeros=True)


def _scheme(scheme: str | Mapping[str, str] | Scheme) -> Scheme:
  return scheme if isinstance(scheme, Scheme) else parse_scheme(scheme)


def _uncalibrated(
  model: keras.Model, scheme: Scheme, float_layers: Sequence[str] | None, keep_zeros: bool
) -> keras.Model:
  """Returns a quantized copy that is known to convert, with tfmot's initial ranges."""
  check_model(model)
  flat = flatten(model)
  float_layers = scheme.default_float_layers(flat) if float_layers is None else expanded(float_layers, flat)
  check_quantizable(flat, scheme, float_layers)
  with _float32_policy():  # The global policy may be the teacher's mixed precision.
    lowered = scheme.lower(flat, float_layers)
    zeros = zeros_of(lowered) if keep_zeros else {}
    check_zeros(lowered.name, zeros, scheme, float_layers)
    quantized = wrapped(lowered, scheme, float_layers, zeros)
  set_kernel_ranges(quantized)
  _check_kernels(quantized, lowered.layers, float_layers)
  if not placement.is_known(lowered):
    check_export(flat, quantized, scheme, allow_float=bool(float_layers))
  return quantized


def _check_kernels(quantized: keras.Model, layers: Sequence[keras.layers.Layer], float_layers: Sequence[str]) -> None:
  """Raises if a kernel would be trained in float although its layer is not among `float_layers`."""
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
def _float32_policy() -> Iterator[None]:
  policy = keras.mixed_precision.global_policy()
  keras.mixed_precision.set_global_policy("float32")
  try:
    yield
  finally:
    keras.mixed_precision.set_global_policy(policy)
