"""Memory-mapped arrays of a cache, whose blocks are verified when they are first read."""

import os
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

_BY_EXAMPLE = (np.concatenate, np.take, np.repeat, np.split, np.array_split, np.copy)
_READ_NO_VALUES = (np.may_share_memory, np.shares_memory, np.ndim, np.shape, np.size, np.result_type)


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


class CachedOutputs(np.memmap):
  """A memory-mapped array of a cache, with examples along the first axis.

  What is indexed, computed or selected with numpy is verified first, block by block; `np.asarray` and TensorFlow's own
  conversions read without that, after `CachedTeacher.verify` safely.

  `tfkd.data.batches` compares the fingerprints with those of its inputs. Slicing, indexing, `np.take`, splitting,
  repeating and concatenating along the first axis keep the fingerprints of the selected examples. Arrays computed in
  other ways have none, and are not compared.
  """

  fingerprints: np.ndarray | None = None
  """int64 [n], of the inputs from which the outputs were computed, or None."""
  blocks: Blocks | None = None
  """Checksums of the whole array; None for parts of one, which are verified."""

  def __getitem__(self, index):
    rows = index[0] if isinstance(index, tuple) and index else index
    self._verify(rows)
    found = super().__getitem__(index)
    if self.fingerprints is not None and np.ndim(found) and (isinstance(rows, slice) or np.ndim(rows) == 1):
      found = _with_fingerprints(found, self.fingerprints[rows])
    return found

  def __iter__(self):
    self._verify()
    return super().__iter__()

  def __array_ufunc__(self, ufunc, method, *inputs, out=None, **kwargs):
    for array in inputs:
      if isinstance(array, CachedOutputs):
        array._verify()
    inputs = [np.asarray(array) if isinstance(array, CachedOutputs) else array for array in inputs]
    return getattr(ufunc, method)(*inputs, **kwargs, **({} if out is None else {"out": out}))

  def __array_function__(self, function, types, args, kwargs):
    for array in () if function in _READ_NO_VALUES else tf.nest.flatten((args, kwargs)):
      if isinstance(array, CachedOutputs):
        array._verify()
    found = super().__array_function__(function, types, args, kwargs)
    arrays = args[0] if args and isinstance(args[0], (list, tuple)) else args[:1]
    stored = [getattr(array, "fingerprints", None) for array in arrays]
    if function not in _BY_EXAMPLE or not stored or any(part is None for part in stored):
      return found
    try:
      kept = function(stored if arrays is args[0] else stored[0], *args[1:], **kwargs)
    except (ValueError, IndexError):  # Along another axis.
      return found
    if tf.nest.flatten(found)[0].ndim != arrays[0].ndim:  # Of all elements in one row.
      return found
    if isinstance(found, list):
      return [_with_fingerprints(*pair) for pair in zip(found, kept, strict=True)]
    return _with_fingerprints(found, kept)

  def __array_wrap__(self, array, context=None, return_scalar=False):
    array = np.asarray(array)
    return array[()] if return_scalar else array

  def _verify(self, rows=None):
    if self.blocks is not None:
      self.blocks.verify(rows)


def _with_fingerprints(array, kept):
  if kept.ndim != 1 or kept.shape != array.shape[:1]:
    return array
  array = array.view(CachedOutputs)
  array.fingerprints = kept
  return array
