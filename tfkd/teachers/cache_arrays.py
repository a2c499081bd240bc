"""Memory-mapped arrays of a cache, whose blocks are verified when they are first read."""

import os
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

_BY_EXAMPLE = (np.concatenate, np.take, np.repeat, np.split, np.array_split, np.copy)


class Blocks:
  """CRC-32 of the blocks of a file, each of which is computed once.

  Args:
    file: path of the file, for messages.
    array: its content, [n, ...].
    rows: rows of a block; the last block may have fewer.
    expected: CRC-32 of each block.
  """

  def __init__(self, file: str, array: np.ndarray, rows: int, expected: Sequence[int]):
    self._file, self._rows, self._expected = file, rows, expected
    self._array = array
    self._is_verified = np.zeros(len(expected), bool)

  def verify(self, rows: Any = None) -> None:
    """Reads the blocks of some rows that were not read before.

    Args:
      rows: index or indices of rows, or a slice, as numpy takes them; None for all.

    Raises:
      ValueError: a block was changed since it was written.
    """
    for block in self._blocks_of(rows):
      if not self._is_verified[block]:
        start = block * self._rows
        part = np.ascontiguousarray(self._array[start : start + self._rows])
        if zlib.crc32(part.data) != self._expected[block]:
          raise ValueError(
            f"{self._file} has changed since it was written (the CRC-32 of the examples {start} to "
            f"{start + len(part) - 1} differs): remove {os.path.dirname(self._file)} and write it again."
          )
        self._is_verified[block] = True

  def _blocks_of(self, rows):
    if self._is_verified.all():
      return ()
    count = len(self._array)
    if isinstance(rows, slice):
      chosen = range(count)[rows]
      if not len(chosen):
        return ()
      low, high = min(chosen[0], chosen[-1]), max(chosen[0], chosen[-1])
      return range(low // self._rows, high // self._rows + 1)
    found = np.asarray(rows) if isinstance(rows, (int, np.integer, list, np.ndarray)) else None
    if found is None or found.dtype == bool or not found.size:
      return range(len(self._is_verified)) if found is None or found.size else ()
    return np.unique(np.where(found < 0, found + count, found).clip(0, count - 1) // self._rows)


class CachedOutputs(np.lib.mixins.NDArrayOperatorsMixin):
  """An array of a cache, with examples along the first axis: it is indexed, computed with and converted as numpy's are.

  A memory-mapped one is read when it is used, block by block, and each block is verified then. It is no `np.ndarray`,
  since numpy and TensorFlow would read that without asking.

  `tfkd.data.batches` compares the fingerprints with those of its inputs. Slicing, indexing, `np.take`, splitting,
  repeating and concatenating along the first axis keep the fingerprints of the selected examples. Arrays computed in
  other ways have none, and are not compared.

  Args:
    array: [n, ...].
    fingerprints: int64 [n], of the inputs from which the outputs were computed, or None.
    blocks: checksums of a memory-mapped array; None for arrays in memory.
  """

  def __init__(self, array: np.ndarray, fingerprints: Any = None, blocks: Blocks | None = None):
    self._array, self.fingerprints, self.blocks = array, fingerprints, blocks

  @property
  def is_mapped(self) -> bool:
    """Whether the values are in a file; reading all of them would take memory."""
    return self.blocks is not None

  @property
  def shape(self) -> tuple[int, ...]:
    """Shape of the array."""
    return self._array.shape

  @property
  def dtype(self) -> np.dtype:
    """Type of the elements."""
    return self._array.dtype

  @property
  def ndim(self) -> int:
    """Number of axes."""
    return self._array.ndim

  def __len__(self) -> int:
    return len(self._array)

  def __getitem__(self, index: Any) -> Any:
    rows = index[0] if isinstance(index, tuple) and index else index
    self._verify(rows)
    found = np.asarray(self._array[index])
    if self.fingerprints is not None and found.ndim and (isinstance(rows, slice) or np.ndim(rows) == 1):
      return _with_fingerprints(found, np.asarray(self.fingerprints[rows]))
    return found[()]

  def __iter__(self) -> Any:
    return iter(np.asarray(self))

  def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
    self._verify()
    array = np.asarray(self._array, dtype)
    return array.copy() if copy and array.base is not None else array

  def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
    return getattr(ufunc, method)(*map(_plain, inputs), **kwargs)

  def __array_function__(self, function: Any, types: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    found = function(*_plain(args), **_plain(kwargs))
    arrays = args[0] if args and isinstance(args[0], (list, tuple)) else args[:1]
    stored = [_fingerprints_of(array) for array in arrays]
    if function not in _BY_EXAMPLE or not stored or any(part is None for part in stored):
      return found
    try:
      kept = function(stored if arrays is args[0] else stored[0], *_plain(args[1:]), **_plain(kwargs))
    except (ValueError, IndexError):  # Along another axis.
      return found
    if tf.nest.flatten(found)[0].ndim != arrays[0].ndim:  # Of all elements in one row.
      return found
    if isinstance(found, list):
      return [_with_fingerprints(*pair) for pair in zip(found, kept, strict=True)]
    return _with_fingerprints(found, kept)

  def __getattr__(self, name: str) -> Any:
    if name.startswith("_"):
      raise AttributeError(name)
    return getattr(np.asarray(self), name)

  def __repr__(self) -> str:
    return f"<CachedOutputs of shape {self.shape}, {self.dtype}>"

  def _verify(self, rows=None):
    if self.blocks is not None:
      self.blocks.verify(rows)


def _plain(value: Any) -> Any:
  """Returns nested arguments of a numpy function with plain arrays."""
  if isinstance(value, CachedOutputs):
    return np.asarray(value)
  if isinstance(value, (list, tuple)):
    return type(value)(map(_plain, value))
  return {key: _plain(part) for key, part in value.items()} if isinstance(value, dict) else value


def _fingerprints_of(array):
  found = getattr(array, "fingerprints", None)
  return None if found is None else np.asarray(found)


def _with_fingerprints(array, kept):
  return CachedOutputs(array, kept) if kept.ndim == 1 and kept.shape == array.shape[:1] else array
