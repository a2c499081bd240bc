"""Stores students with few bits in small files: kernels at their bit width, everything else as float32.

A pack is a zip archive, whose CRC-32s detect damage: `student.json` holds the architecture and the order of the tensors
in `weights.bin`. No kernel of LiteRT computes in these bits: a pack is for storage and transport.
"""

import json
import math
import os
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras

from tfkd.quantization import LearnedStepWeights, LowBitWeights, scheme_of
from tfkd.storage.files import atomic_path

_FORMAT = 2
_READABLE = (1, 2)  # Format 1 has no kernels with several steps.
_HEADER, _WEIGHTS = "student.json", "weights.bin"
_LONGEST_HEADER = 2**26  # Bytes.


def pack(student: keras.Model, path: str | os.PathLike) -> int:
  """Writes a student with fewer than eight feature bits to a packed file.

  Args:
    student: model that `tfkd.quantization.quantize` made with a scheme such as "w2a1".
    path: path of the file, written atomically; an existing file is replaced.

  Returns:
    Size of the file in bytes.

  Raises:
    ValueError: the student is float, or its scheme is exported otherwise.
  """
  scheme = scheme_of(student)
  if scheme is None or scheme.export_kind != "pack":
    raise ValueError(
      f"pack is for students with fewer than eight feature bits, such as w2a1; {student.name} is "
      f"{scheme or 'float'}: use to_tflite."
    )
  model, kernels = _on_its_grid(student)
  tensors, content = [], []
  for variable in _stored(model):
    tensor: dict[str, Any] = {"shape": variable.shape.as_list()}
    if id(variable) in kernels:
      levels, fields, steps = kernels[id(variable)]
      tensor |= fields
      content += [_to_bits(levels, tensor["bits"]), steps.astype("<f4").tobytes()]
    else:
      content.append(variable.numpy().astype("<f4").tobytes())
    tensors.append(tensor)
  header = {"format": _FORMAT, "scheme": str(scheme), "tensors": tensors}
  header["model"] = keras.saving.serialize_keras_object(model)
  with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
    archive.writestr(_HEADER, json.dumps(header), zipfile.ZIP_DEFLATED, 9)
    archive.writestr(_WEIGHTS, b"".join(content), zipfile.ZIP_STORED)
  return os.path.getsize(path)


def unpack(path: str | os.PathLike) -> keras.Model:
  """Restores a student from a file of `pack`. No code from the file is executed.

  Args:
    path: path of the file.

  Returns:
    `tf_keras` model with the student's outputs, bit for bit. Its kernels are rounded constants, so that it can predict
    but not be trained.

  Raises:
    FileNotFoundError: there is no file at `path`.
    ValueError: the file is not a pack, or is damaged.
  """
  if not os.path.isfile(path):
    raise FileNotFoundError(f"no packed student at {path}.")
  try:
    with zipfile.ZipFile(path) as archive:
      if archive.getinfo(_HEADER).file_size > _LONGEST_HEADER:
        raise ValueError(f"{_HEADER} is longer than {_LONGEST_HEADER:,} bytes")
      header = json.loads(archive.read(_HEADER))
      if header["format"] not in _READABLE:
        raise ValueError(
          f"it has format {header['format']}, and this version reads {' and '.join(map(str, _READABLE))}"
        )
      sizes = [_bytes(tensor) for tensor in header["tensors"]]
      if archive.getinfo(_WEIGHTS).file_size != sum(sizes):
        raise ValueError(f"{_WEIGHTS} has {archive.getinfo(_WEIGHTS).file_size:,} bytes, not {sum(sizes):,}")
      content = archive.read(_WEIGHTS)
    model = keras.saving.deserialize_keras_object(header["model"], safe_mode=True)
    starts = np.cumsum([0, *sizes])
    for variable, tensor, start, stop in zip(_stored(model), header["tensors"], starts[:-1], starts[1:], strict=True):
      variable.assign(_values(tensor, content[start:stop]))
    model.trainable = False
  except Exception as error:  # zipfile, json and Keras raise errors of different types for damaged content.
    raise ValueError(f"{path} is not a packed student, or damaged ({type(error).__name__}: {error}).") from error
  return model


def _on_its_grid(student: keras.Model) -> tuple[keras.Model, dict[int, tuple[np.ndarray, dict[str, Any], np.ndarray]]]:
  """Returns a copy whose kernels are rounded, and what `pack` stores of each, by the id of its variable.

  That is its levels, uint8 below 2^bits; "bits" and "width" or "steps", the shape of the steps, as a dict; and the
  steps, empty for a width.
  """
  config = student.get_config()
  for layer in config["layers"]:
    if "quantize_config" in layer["config"]:
      layer["config"]["quantize_config"]["config"]["kernel"] = None  # The kernel is rounded already.
  model = type(student).from_config(config)
  kernels = {}
  for layer, copy in zip(student.layers, model.layers, strict=True):
    quantized = getattr(layer, "_weight_vars", ())
    if not quantized:
      copy.set_weights(layer.get_weights())
      continue
    ((kernel, quantizer, ranges),) = quantized
    variable = getattr(copy.layer, layer.quantize_config.kernel)
    by_name = {weight.name: weight for weight in layer.weights}
    for weight in copy.weights:  # The bias, and what rounds the output.
      if weight is not variable:
        weight.assign(by_name[weight.name])
    levels, fields, steps = _encoded(kernel, quantizer, ranges)
    variable.assign(_decoded(levels, fields, steps))
    kernels[id(variable)] = levels, fields, steps
  return model, kernels


def _encoded(kernel: tf.Variable, quantizer: Any, ranges: Mapping[str, Any]) -> tuple[np.ndarray, dict, np.ndarray]:
  """Returns levels, fields of the header and steps of a kernel, see `_on_its_grid`."""
  if isinstance(quantizer, LearnedStepWeights):
    levels, steps = quantizer.encode(kernel, ranges)
    unsigned = (levels.astype(np.int16) + 2 ** (quantizer.bits - 1)).astype(np.uint8)
    return unsigned, {"bits": quantizer.bits, "steps": list(steps.shape)}, steps
  levels, width = quantizer.encode(kernel)
  return np.asarray(levels, np.uint8), {"bits": quantizer.bits, "width": float(width)}, np.zeros(0)


def _decoded(levels: np.ndarray, fields: Mapping[str, Any], steps: np.ndarray) -> Any:
  """Returns exactly the kernel that the student computes with."""
  if "steps" in fields:
    return (levels.astype(np.float32) - np.float32(2 ** (fields["bits"] - 1))) * steps
  return LowBitWeights.decode(tf.constant(levels), tf.constant(fields["width"], tf.float32), fields["bits"])


def _stored(model: keras.Model) -> list[tf.Variable]:
  """Returns the variables that a file holds, in order; tfmot uses integer variables in training only."""
  return [variable for variable in model.variables if variable.dtype.is_floating]


def _bytes(tensor: Mapping[str, Any]) -> int:
  """Returns the number of bytes of a tensor, given its entry in the header."""
  if "bits" not in tensor:
    return 4 * math.prod(tensor["shape"])
  return _bytes_of_levels(tensor) + (4 * math.prod(tensor["steps"]) if "steps" in tensor else 0)


def _bytes_of_levels(tensor: Mapping[str, Any]) -> int:
  return math.ceil(math.prod(tensor["shape"]) * tensor["bits"] / 8)


def _values(tensor: Mapping[str, Any], content: bytes) -> Any:
  if "bits" not in tensor:
    return np.frombuffer(content, "<f4").reshape(tensor["shape"])
  size = _bytes_of_levels(tensor)
  levels = _from_bits(content[:size], math.prod(tensor["shape"]), tensor["bits"]).reshape(tensor["shape"])
  return _decoded(levels, tensor, np.frombuffer(content[size:], "<f4").reshape(tensor.get("steps", [0])))


def _to_bits(levels: np.ndarray, bits: int) -> bytes:
  """Concatenates the bits of uint8 integers below 2^bits, most significant bit first."""
  return np.packbits(np.unpackbits(levels.reshape(-1, 1), axis=1)[:, 8 - bits :]).tobytes()


def _from_bits(content: bytes, count: int, bits: int) -> np.ndarray:
  """Inverts `_to_bits` for a number of integers."""
  digits = np.unpackbits(np.frombuffer(content, np.uint8), count=count * bits).reshape(count, bits)
  return digits @ (1 << np.arange(bits)[::-1])
