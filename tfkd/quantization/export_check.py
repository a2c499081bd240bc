"""Checks before training that a quantized model converts to the kind of file that its scheme is exported to."""

import json
import re
from collections.abc import Sequence

import tensorflow as tf
import tf_keras as keras

from tfkd.quantization import conversion
from tfkd.quantization.calibration import calibrate
from tfkd.quantization.schemes import Scheme

_EXAMPLES = 8
_checked: set[str] = set()  # Configurations of networks that convert, with any weights.


def check_export(model: keras.Model, quantized: keras.Model, scheme: Scheme, allow_float: bool) -> None:
  """Converts a quantized model, trained or not, and discards the file.

  Args:
    model: the float model.
    quantized: functional or `Sequential` `tf_keras` model. Models without fixed input sizes are not checked.
    scheme: scheme of the model.
    allow_float: whether layers were left in float on purpose.

  Raises:
    ValueError: TFLite lacks an operation, or tensors stay in float32; names their layers and the remedies.
  """
  network = json.dumps([quantized.get_config(), allow_float], sort_keys=True, default=str)
  if any(None in tensor.shape[1:] for tensor in quantized.inputs) or network in _checked:
    return
  weights = quantized.get_weights()
  is_integer = scheme.export_kind == "tflite"
  if scheme.needs_calibration:
    # Noise makes ranges differ, as data does: operations that need two equal ranges fail only then.
    calibrate(quantized, [_noise(tensor) for tensor in quantized.inputs])
  try:
    content = conversion.convert(quantized, io="int8" if is_integer else None)
  except ValueError as error:
    if conversion.NO_OPERATION in str(error):
      raise ValueError(f"{error} Replace that layer.") from error
    raise ValueError(f"{error} {_advice('float_layers')}{after_training(model)}") from error
  finally:
    quantized.set_weights(weights)
  floats = conversion.float_tensors(content, "int8") if is_integer and not allow_float else []
  if floats:
    layers = float_layers(floats, quantized)
    raise ValueError(
      f"{quantized.name} does not convert to an integer file: {len(floats)} tensors stay in float32, of the layers "
      f"{', '.join(layers)}. {_advice(f'float_layers={layers}')}{after_training(model)}"
    )
  _checked.add(network)


def _advice(argument: str) -> str:
  return f"Replace these layers; or pass {argument} to quantize, and allow_float=True to to_tflite."


def after_training(model: keras.Model) -> str:
  """Returns a line on what quantization after training gives for a float model: its call, and the size of the file."""
  call = (
    "\nOr quantize the whole network after its training: tfkd.deploy.to_tflite(model, path, representative_data=..."
  )
  if any(None in tensor.shape[1:] for tensor in model.inputs):
    return f"{call})."
  try:
    content = conversion.convert(model, io="int8", examples=[_noise(tensor).numpy() for tensor in model.inputs])
  except ValueError:  # It has no integer form either.
    return ""
  floats = len(conversion.float_tensors(content, "int8"))
  if floats:
    return f"{call}, allow_float=True), which gives {len(content):,} bytes, with {floats} float tensors."
  return f"{call}), which gives {len(content):,} bytes, all in integers."


def _noise(tensor: tf.Tensor) -> tf.Tensor:
  shape = [_EXAMPLES, *tensor.shape[1:]]
  # Integers may be indices, for which 0 is always valid.
  return tf.random.stateless_normal(shape, (0, 0)) if tensor.dtype.is_floating else tf.zeros(shape, tensor.dtype)


def float_layers(names: Sequence[str], quantized: keras.Model) -> list[str]:
  """Returns the layers, by their names in the float model, that tensors of a file belong to."""
  found = {name for tensor in names for name in re.findall(r"quant_([\w.]+?)(?=[/;]|$)", tensor)}
  layers = [layer.name.removeprefix("quant_") for layer in quantized.layers]
  return [name for name in layers if name in found]
