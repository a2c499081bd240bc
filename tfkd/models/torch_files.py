"""Reads PyTorch checkpoints without PyTorch: `.safetensors`, and `.pth` files that contain only tensors."""

import math
import pickle
import zipfile
from collections import OrderedDict

import numpy as np

_STORAGES = {
  "DoubleStorage": np.float64, "FloatStorage": np.float32, "HalfStorage": np.float16, "LongStorage": np.int64,
  "IntStorage": np.int32, "ShortStorage": np.int16, "CharStorage": np.int8, "ByteStorage": np.uint8,
  "BoolStorage": np.bool_,
}  # fmt: skip


def read_state_dict(path: str) -> dict[str, np.ndarray]:
  """Reads the tensors of a checkpoint.

  Args:
    path: `.safetensors`, or a file of `torch.save(model.state_dict(), path)` (PyTorch 1.6 or newer). Nothing in it is
      executed: everything but tensors, numbers, strings and containers is refused.

  Returns:
    dict from the model's names to arrays. A dict under "state_dict" or "model" is unpacked, and DataParallel's prefix
    "module." is removed.

  Raises:
    FileNotFoundError: path does not exist.
    ValueError: the file is damaged, contains other objects than tensors, or has another format.
  """
  if path.endswith(".safetensors"):
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
      return load_file(path)
    except (SafetensorError, KeyError) as error:
      raise ValueError(f"{path} is damaged or not a safetensors file: {error}") from error
  content = _read_pth(path)
  for key in ("state_dict", "model"):
    if isinstance(content, dict) and isinstance(content.get(key), dict):
      content = content[key]
  if not isinstance(content, dict) or not all(isinstance(value, np.ndarray) for value in content.values()):
    raise ValueError(f"{path} holds no dict of tensors: expected torch.save(model.state_dict(), path).")
  if content and all(name.startswith("module.") for name in content):
    content = {name.removeprefix("module."): tensor for name, tensor in content.items()}
  return dict(content)


def _read_pth(path):
  try:
    with zipfile.ZipFile(path) as archive:
      (pickled,) = (name for name in archive.namelist() if name.endswith("/data.pkl") or name == "data.pkl")
      return _TensorsOnly(archive, pickled).load()
  except zipfile.BadZipFile as error:
    raise ValueError(
      f"{path} is damaged, or was written by PyTorch before 1.6: load it there, and save it again or as safetensors."
    ) from error
  except (pickle.UnpicklingError, EOFError, KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
    raise ValueError(f"{path} is not a file of tensors alone: {error}") from error


class _TensorsOnly(pickle.Unpickler):
  """Reads PyTorch's pickles. Only a few names are allowed, so that no file can run code."""

  def __init__(self, archive, pickled):
    super().__init__(archive.open(pickled))
    self._archive = archive
    self._folder = pickled.removesuffix("data.pkl")

  def find_class(self, module, name):
    if (module, name) == ("collections", "OrderedDict"):
      return OrderedDict
    if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
      return _tensor
    if (module, name) == ("torch._utils", "_rebuild_parameter"):
      return lambda tensor, *_: tensor
    if module == "torch" and name in _STORAGES:
      return _STORAGES[name]
    raise pickle.UnpicklingError(f"it refers to {module}.{name}, which is not a tensor")

  def persistent_load(self, identifier):
    kind, dtype, key, _, _ = identifier
    if kind != "storage":
      raise pickle.UnpicklingError(f"unknown entry {kind!r}")
    name = f"{self._folder}data/{key}"
    if self._archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
      raise pickle.UnpicklingError(
        f"{name} is compressed; PyTorch writes uncompressed entries"
      )  # It may be of any size.
    return np.frombuffer(self._archive.read(name), dtype)


def _tensor(storage, offset, size, stride, *_):
  """Returns the tensor that views a part of a storage."""
  last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
  if min([offset, *size, *stride]) < 0 or (math.prod(size) and last >= len(storage)) or math.prod(size) > len(storage):
    raise pickle.UnpicklingError(f"a tensor of size {tuple(size)} does not fit its storage of {len(storage)} numbers")
  strides = [step * storage.itemsize for step in stride]
  return np.lib.stride_tricks.as_strided(storage[offset:], size, strides, writeable=False).copy()
