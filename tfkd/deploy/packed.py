"""Students of few bits as files of that size: kernels bit by bit, everything else as float32.

A pack is a zip archive, whose CRC-32s find damage: `student.json` has the architecture and says what follows what in
`weights.bin`. No kernel of LiteRT computes in these bits: a pack is for storage and transport.
"""

import json
import math
import os
import zipfile

import numpy as np
import tf_keras as keras

from tfkd.quantization import LowBitWeights, scheme_of
from tfkd.storage.files import atomic_path

_FORMAT = 1
_HEADER, _WEIGHTS = "student.json", "weights.bin"
_LONGEST_HEADER = 2**26


def pack(student: keras.Model, path: str | os.PathLike) -> int:
  """Writes a student with fewer than eight feature bits as a packed file.

  Args:
    student: model that `tfkd.quantization.quantize` made with a scheme such as "w2a1".
    path: where to write; replaced whole or not at all.

  Returns:
    int, bytes of the file.

  Raises:
    ValueError: the student has another scheme, or none.
  """
  scheme = scheme_of(student)
  if scheme is None or scheme.export_kind != "pack":
    raise ValueError(
      f"pack is for students with fewer than eight feature bits, as w2a1; {student.name} is {scheme or 'float'}: use "
      "to_tflite."
    )
  model, kernels = _on_its_grid(student)
  tensors, content = [], []
  for variable in _stored(model):
    tensor = {"shape": variable.shape.as_list()}
    if id(variable) in kernels:
      levels, width, tensor["bits"] = kernels[id(variable)]
      tensor["width"] = float(width)
      content.append(_to_bits(levels, tensor["bits"]))
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
  """Reads what `pack` wrote. Nothing in the file is executed.

  Args:
    path: of the file.

  Returns:
    `tf_keras` model that answers as the student does, bit by bit. Its kernels are constants of the grid: it is to
    predict, not to train on.

  Raises:
    FileNotFoundError: no file at `path`.
    ValueError: not such a file, or damaged.
  """
  if not os.path.isfile(path):
    raise FileNotFoundError(f"no packed student at {path}.")
  try:
    with zipfile.ZipFile(path) as archive:
      if archive.getinfo(_HEADER).file_size > _LONGEST_HEADER:
        raise ValueError(f"{_HEADER} is longer than {_LONGEST_HEADER:,} bytes")
      header = json.loads(archive.read(_HEADER))
      if header["format"] != _FORMAT:
        raise ValueError(f"it has format {header['format']}, and this version reads {_FORMAT}")
      sizes = [_bytes(tensor) for tensor in header["tensors"]]
      if archive.getinfo(_WEIGHTS).file_size != sum(sizes):
        raise ValueError(f"{_WEIGHTS} has {archive.getinfo(_WEIGHTS).file_size:,} bytes, not {sum(sizes):,}")
      content = archive.read(_WEIGHTS)
    model = keras.saving.deserialize_keras_object(header["model"], safe_mode=True)
    starts = np.cumsum([0, *sizes])
    for variable, tensor, start, stop in zip(_stored(model), header["tensors"], starts[:-1], starts[1:], strict=True):
      variable.assign(_values(tensor, content[start:stop]))
    model.trainable = False
  except Exception as error:  # Of damage, zipfile, json and Keras raise each their own kinds.
    raise ValueError(f"{path} is not a packed student, or damaged ({type(error).__name__}: {error}).") from error
  return model


def _on_its_grid(student):
  """A model whose kernels are the student's rounded ones, and of these {id of the variable: (levels, width, bits)}."""
  config = student.get_config()
  for layer in config["layers"]:
    if "quantize_config" in layer["config"]:
      layer["config"]["quantize_config"]["config"]["kernel"] = None  # There is nothing left to round.
  model = type(student).from_config(config)
  kernels = {}
  for layer, copy in zip(student.layers, model.layers, strict=True):
    quantized = getattr(layer, "_weight_vars", ())
    if not quantized:
      copy.set_weights(layer.get_weights())
      continue
    for weight in layer.layer.weights:  # Its bias.
      next(w for w in copy.layer.weights if w.name == weight.name).assign(weight)
    ((kernel, quantizer, _),) = quantized
    variable = getattr(copy.layer, layer.quantize_config.kernel)
    levels, width = quantizer.encode(kernel)
    variable.assign(LowBitWeights.decode(levels, width, quantizer.bits))
    kernels[id(variable)] = np.asarray(levels, np.uint8), np.float32(width), quantizer.bits
  return model, kernels


def _stored(model):
  """Variables that a file holds, in order; integers are of tfmot's training alone."""
  return [variable for variable in model.variables if variable.dtype.is_floating]


def _bytes(tensor):
  count = math.prod(tensor["shape"])
  return math.ceil(count * tensor["bits"] / 8) if "bits" in tensor else 4 * count


def _values(tensor, content):
  if "bits" not in tensor:
    return np.frombuffer(content, "<f4").reshape(tensor["shape"])
  levels = _from_bits(content, math.prod(tensor["shape"]), tensor["bits"]).reshape(tensor["shape"])
  return LowBitWeights.decode(levels, tensor["width"], tensor["bits"])


def _to_bits(levels, bits):
  """Integers below 2^bits, one after the other, the most significant bit first."""
  return np.packbits(np.unpackbits(levels.reshape(-1, 1), axis=1)[:, 8 - bits :]).tobytes()


def _from_bits(content, count, bits):
  digits = np.unpackbits(np.frombuffer(content, np.uint8), count=count * bits).reshape(count, bits)
  return digits @ (1 << np.arange(bits)[::-1])
