"""Reads PyTorch checkpoints without PyTorch: `.safetensors`, and `.pth` files that contain only tensors."""

import math
import os
import pickle
import zipfile
from collections import OrderedDict

import numpy as np

# The first object of files of `torch.save` before PyTorch 1.6, which are a sequence of pickles and raw numbers.
_LEGACY = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)
_STORAGES = {
  "DoubleStorage": np.float64, "FloatStorage": np.float32, "HalfStorage": np.float16, "LongStorage": np.int64,
  "IntStorage": np.int32, "ShortStorage": np.int16, "CharStorage": np.int8, "ByteStorage": np.uint8,
  "BoolStorage": np.bool_,
}  # fmt: skip


def read_state_dict(path: str) -> dict[str, np.ndarray]:
  """Reads the tensors of a checkpoint.

  Args:
    path: `.safetensors`, or a file of `torch.save(model.state_dict(), path)` of any PyTorch since 0.4. Nothing in it is
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
    with open(path, "rb") as file:
      if file.read(len(_LEGACY)) == _LEGACY:
        return _read_legacy(file)
    with zipfile.ZipFile(path) as archive:
      (pickled,) = (name for name in archive.namelist() if name.endswith("/data.pkl") or name == "data.pkl")
      return _TensorsOnly(archive.open(pickled), _entries(archive, pickled.removesuffix("data.pkl"))).load()
  except zipfile.BadZipFile as error:
    raise ValueError(f"{path} is damaged, or not a file of torch.save: {error}.") from error
  except (pickle.UnpicklingError, EOFError, KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
    raise ValueError(f"{path} is not a file of tensors alone: {error}") from error


def _entries(archive, directory):
  """Returns the function from (dtype, key) to the storage in an archive."""

  def read(dtype, key, _):
    name = f"{directory}data/{key}"
    if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
      raise pickle.UnpicklingError(
        f"{name} is compressed; PyTorch writes uncompressed entries"
      )  # It may be of any size.
    return np.frombuffer(archive.read(name), dtype)

  return read


def _read_legacy(file):
  """Reads an open file behind its first object: version, platform, tensors, keys of storages, and the storages."""
  version, platform = (_TensorsOnly(file, None).load() for _ in range(2))
  if version != 1001 or not platform["little_endian"]:
    raise pickle.UnpicklingError(f"it has version {version}, or another order of bytes; expected 1001, little-endian")
  start, dtypes = file.tell(), {}

  def declared(dtype, key, size):
    dtypes[key] = np.dtype(dtype)
    return np.zeros(0, dtype)

  # The storages follow the tensors that view them: tensors are read twice.
  _Declarations(file, declared).load()
  storages = {}
  for key in _TensorsOnly(file, None).load():
    size = int.from_bytes(file.read(8), "little") * dtypes[key].itemsize
    left = os.fstat(file.fileno()).st_size - file.tell()
    if size > left:
      raise pickle.UnpicklingError(f"it is truncated: a tensor has {size} bytes, and {max(left, 0)} are left")
    storages[key] = np.frombuffer(file.read(size), dtypes[key])
  file.seek(start)
  return _TensorsOnly(file, lambda dtype, key, size: storages[key]).load()


class _TensorsOnly(pickle.Unpickler):
  """Reads PyTorch's pickles. Only a few names are allowed, so that no file can run code."""

  def __init__(self, file, storage):
    super().__init__(file)
    self._storage = storage

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
    kind, dtype, key, _, size, *view = identifier
    if kind != "storage" or any(view):
      raise pickle.UnpicklingError(f"unknown entry {kind!r}")
    return self._storage(dtype, key, size)


class _Declarations(_TensorsOnly):
  """Reads which storages a file has; its tensors are None."""

  def find_class(self, module, name):
    found = super().find_class(module, name)
    return (lambda *_: None) if found is _tensor else found


def _tensor(storage, offset, size, stride, *_):
  """Returns the tensor that views a part of a storage."""
  last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
  if min([offset, *size, *stride]) < 0 or (math.prod(size) and last >= len(storage)) or math.prod(size) > len(storage):
    raise pickle.UnpicklingError(f"a tensor of size {tuple(size)} does not fit its storage of {len(storage)} numbers")
  strides = [step * storage.itemsize for step in stride]
  return np.lib.stride_tricks.as_strided(storage[offset:], size, strides, writeable=False).copy()
