"""Writes the files of a cache, so that an interrupted process loses at most a few seconds of work."""

import math
import os
import shutil
import time
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from tfkd.storage.digests import from_checked_json, to_checked_json
from tfkd.storage.files import write_text
from tfkd.storage.fingerprints import fingerprints
from tfkd.teachers.cache_format import (
  FINGERPRINTS,
  MANIFEST,
  differing_specs,
  dtype_of,
  file_name,
  specs_of_inputs,
)
from tfkd.teachers.provenance import differences, first_difference

_PROGRESS = "progress.json"
_BLOCK_BYTES = 2**20  # Of the largest array: what one reader of a row has to verify.
_RECORD_SECONDS = 2.0  # Work that a killed process may lose.


class CacheWriter:
  """Appends to the files of a partial cache, and resumes one that an interrupted process left.

  Args:
    partial: directory of the partial cache.
    identity: description of format, layers and teacher; a partial cache with another one is discarded.
  """

  def __init__(self, partial: str, identity: Mapping[str, Any]):
    self._partial, self._identity = partial, identity
    self._reset()
    self._recorded = time.monotonic()
    os.makedirs(partial, exist_ok=True)
    try:
      self._resume()
    except FileNotFoundError:
      self.clear()
    except (OSError, ValueError, KeyError, TypeError) as error:
      logging.warning("discarding the partial cache %s: %s", partial, error)
      self.clear()

  def _resume(self):
    with open(self._path(_PROGRESS), encoding="utf-8") as opened:
      found = from_checked_json(opened.read())
    if found["identity"] != self._identity:
      raise ValueError(f"it has outputs of another teacher ({differences(found['identity'], self._identity)})")
    self.open(found["shapes"], found["inputs"])
    for name, file in self._files.items():
      recorded = found["examples"] * self.bytes_of(name)
      if os.path.getsize(file.name) < recorded:
        raise ValueError(f"{file.name} is truncated")
      file.truncate(recorded)
      file.seek(recorded)
    self.examples, self._inputs, self._crc32 = found["examples"], found["inputs"], found["crc32"]

  def clear(self) -> None:
    """Removes all files of the partial cache."""
    self.close()
    self._keep_only()
    self._reset()

  def _reset(self):
    self.shapes: Any = None
    self._block_rows = 1
    self._inputs: Any = None
    self.examples, self._files, self._crc32 = 0, {}, {}

  def open(self, shapes: Mapping[str, list], inputs: list) -> None:
    """Opens one file per array.

    Args:
      shapes: dict from name to the shape of one example.
      inputs: result of `specs_of_inputs`.
    """
    self.shapes, self._inputs = shapes, inputs
    self._block_rows = max(1, _BLOCK_BYTES // max(map(self.bytes_of, shapes)))
    for name in shapes:
      file = self._path(file_name(name))
      self._files[name] = open(file, "r+b" if os.path.exists(file) else "wb")  # noqa: SIM115  (closed by `close`)

  def bytes_of(self, name: str) -> int:
    """Returns the bytes that one example takes in an array."""
    return math.prod(self.shapes[name]) * dtype_of(name, self._identity["dtype"]).itemsize

  def is_prefix_of(self, dataset: tf.data.Dataset) -> bool:
    """Returns whether the stored examples are the first ones of a data set."""
    if differing_specs(self._inputs, specs_of_inputs(dataset)):
      return False
    return first_difference(dataset, self._stored_fingerprints()) in (None, self.examples)

  def _stored_fingerprints(self):
    return np.fromfile(self._path(file_name(FINGERPRINTS)), np.int64, self.examples)

  def add(self, inputs: Any, outputs: Mapping[str, np.ndarray]) -> None:
    """Appends a batch.

    Args:
      inputs: nested arrays, of which only fingerprints are stored.
      outputs: dict from name to array.

    Raises:
      ValueError: an output is not finite, or too large for the dtype.
    """
    found = fingerprints(inputs).numpy()
    self._write(FINGERPRINTS, found)
    for name, array in outputs.items():
      with np.errstate(over="ignore"):  # The check below raises instead.
        kept = np.ascontiguousarray(array, dtype_of(name, self._identity["dtype"]))
      if not np.isfinite(kept).all():
        why = f"too large for {self._identity['dtype']}" if np.isfinite(array).all() else "not finite"
        first, *position = np.argwhere(~np.isfinite(kept))[0].tolist()
        raise ValueError(f"the teacher's {name} is {why} in example {self.examples + first}, at {position}.")
      self._write(name, kept)
    self.examples += len(found)
    if time.monotonic() - self._recorded > _RECORD_SECONDS:
      self._record(_PROGRESS, {"identity": self._identity})
      self._recorded = time.monotonic()

  def _write(self, name, array):
    self._files[name].write(array.data)
    sums, rows = self._crc32.setdefault(name, []), self._block_rows
    start, stop = self.examples, self.examples + len(array)
    while start < stop:
      if start % rows == 0:
        sums.append(0)
      end = min(stop, (start // rows + 1) * rows)
      sums[-1] = zlib.crc32(array[start - self.examples : end - self.examples].data, sums[-1])
      start = end

  def finish(self) -> None:
    """Writes the manifest and removes files that are no part of a complete cache."""
    self._record(MANIFEST, {**self._identity, "tensorflow": tf.__version__})
    self.close()
    self._keep_only(MANIFEST, *map(file_name, self.shapes))

  def close(self) -> None:
    """Closes all files."""
    for file in self._files.values():
      file.close()

  def _record(self, name, content):
    for file in self._files.values():
      file.flush()
      os.fsync(file.fileno())
    content = {**content, "examples": self.examples, "inputs": self._inputs, "shapes": self.shapes}
    content["block_rows"] = self._block_rows
    write_text(self._path(name), to_checked_json({**content, "crc32": self._crc32}))

  def _keep_only(self, *names):
    for name in set(os.listdir(self._partial)).difference(names):
      path = self._path(name)
      shutil.rmtree(path) if os.path.isdir(path) else os.remove(path)  # A kill may leave a temporary directory.

  def _path(self, name):
    return os.path.join(self._partial, name)
