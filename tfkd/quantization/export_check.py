"""Whether a quantized model converts to the file that its scheme promises, found out before the training."""

import json
import re

import tensorflow as tf

from tfkd.quantization import conversion
from tfkd.quantization.calibration import calibrate

_EXAMPLES = 8
_ADVICE = (
  "Replace such a layer; or keep it in float with float_layers, and export with to_tflite(..., allow_float=True); or "
  "quantize the float model after its training, with to_tflite(model, path, representative_data=...)."
)
_checked = set()  # Networks that convert. What converts does not depend on weights.


def check_export(quantized, scheme, allow_float):
  """Converts a quantized model that need not be trained yet.

  Args:
    quantized: functional or `Sequential` `tf_keras` model; where its input sizes are not fixed, nothing is checked.
    scheme: its scheme.
    allow_float: whether layers were left in float on purpose.

  Raises:
    ValueError: TFLite lacks an operation, or tensors stay in float32; their layers are named with what to do.
  """
  network = json.dumps([quantized.get_config(), allow_float], sort_keys=True, default=str)
  if any(None in tensor.shape[1:] for tensor in quantized.inputs) or network in _checked:
    return
  weights = quantized.get_weights()
  is_integer = scheme.export_kind == "tflite"
  if scheme.needs_calibration:
    # Ranges that differ, as data makes them: what needs two equal ones fails only then.
    calibrate(quantized, [_noise(tensor) for tensor in quantized.inputs])
  try:
    content = conversion.convert(quantized, io="int8" if is_integer else None)
  except ValueError as error:
    advice = "Replace that layer." if conversion.NO_OPERATION in str(error) else _ADVICE
    raise ValueError(f"{error} {advice}") from error
  finally:
    quantized.set_weights(weights)
  floats = conversion.float_tensors(content, "int8") if is_integer and not allow_float else []
  if floats:
    layers = float_layers(floats, quantized)
    raise ValueError(
      f"{quantized.name} would not leave as an integer file: {len(floats)} tensors stay in float32, of the layers "
      f"{', '.join(layers)}. {_ADVICE}"
    )
  _checked.add(network)


def _noise(tensor):
  shape = [_EXAMPLES, *tensor.shape[1:]]
  # An integer may be an index, of which the first always exists.
  return tf.random.stateless_normal(shape, (0, 0)) if tensor.dtype.is_floating else tf.zeros(shape, tensor.dtype)


def float_layers(names, quantized):
  """Float names of the layers that tensors of a file come from."""
  found = {name for tensor in names for name in re.findall(r"quant_([\w.]+?)(?=[/;]|$)", tensor)}
  ours = [layer.name.removeprefix("quant_") for layer in quantized.layers]
  return [name for name in ours if name in found]
