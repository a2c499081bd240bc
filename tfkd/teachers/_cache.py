"""Writes a teacher's outputs to disk, once, for every epoch of every student."""

import collections
import concurrent.futures
import contextlib
import math
import os
import shutil
import time
import zlib
from collections.abc import Sequence
from typing import Any

import filelock
import numpy as np
import tensorflow as tf
from absl import logging

from tfkd.storage.digests import from_checked_json, to_checked_json
from tfkd.storage.files import write_text
from tfkd.storage.fingerprints import fingerprints
from tfkd.teachers.cache_format import (
  FINGERPRINTS,
  FORMAT,
  MANIFEST,
  OUTPUTS,
  differing_specs,
  dtype_of,
  file_name,
  name_of_layer,
  specs_of_inputs,
)
from tfkd.teachers.cached import CachedTeacher
from tfkd.teachers.frozen import as_teacher
from tfkd.teachers.provenance import check_order, differences, first_difference, inputs_of

_DTYPES = ("float16", "float32")
_PROGRESS = "progress.json"
_RECORD_SECONDS = 2.0  # What a killed process may lose.
_WAITING = 4  # Batches that are computed and not yet written: memory does not grow with the data.
_TOLERANCE = 0.02  # Of the largest output: another device or arithmetic differs by less, another teacher by more.


def cache(
  teacher: Any, dataset: tf.data.Dataset, path: str | os.PathLike, layers: Sequence[str] = (), dtype: str = "float32"
) -> CachedTeacher:
  """Runs a teacher once over a data set and stores its outputs on disk.

  A process that was killed goes on where it was; `path` appears when it is complete. If it is there already, it is
  compared with this teacher and these data, and used. Processes that ask for one path wait for the first of them.

  Eight bytes of each example, a fingerprint of its inputs, are stored beside its outputs. Data that these are joined to
  later are compared with them, which takes 0.2 ms for a megabyte of inputs on one core: 0.35 ms of a batch of 128
  images of 32 x 32 x 3, below 1 % of a step of `svhn_cnnx0.5` on two cores.

  Args:
    teacher: model or function from a batch to logits (see `tfkd.teachers`).
    dataset: finite `tf.data.Dataset` of batches, of inputs or of (inputs, labels, ...), in the same order each time:
      not shuffled, and augmented by nothing but `tfkd.data.batches(..., views=...)`.
    path: folder to write.
    layers: names of the teacher's layers whose outputs are kept too, for objectives on features.
    dtype: "float32", or "float16" for half the size and three significant digits.

  Returns:
    `CachedTeacher` of it.

  Raises:
    ValueError: the data set begins with other examples when it is iterated again; the folder holds outputs of another
      teacher, of other data, or of other layers or type; the teacher gives several tensors, or numbers that are not
      finite or too large for the type; or there are no examples.
    OSError: the disk has too little space left.
  """
  if dtype not in _DTYPES:
    raise ValueError(f"dtype must be one of {', '.join(_DTYPES)}; got {dtype!r}.")
  teacher = as_teacher(teacher)
  identity = {"format": FORMAT, "dtype": dtype, "layers": sorted(set(layers)), **teacher.describe()}
  check_order(dataset)
  path = os.path.abspath(os.fspath(path))
  if not os.path.exists(path):
    partial = f"{path}.partial"
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with filelock.FileLock(os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.lock")):
      if not os.path.exists(path):
        _write(teacher, dataset, partial, identity)
        os.rename(partial, path)
        logging.info("wrote %s", path)
        return CachedTeacher(path)
  cached = CachedTeacher(path)
  _check(cached, teacher, dataset, identity)
  return cached


class _Writer:
  """Appends to the files of a partial cache, and goes on with one that another process began."""

  def __init__(self, partial, identity):
    self._partial, self._identity = partial, identity
    self._forget()
    self._recorded = time.monotonic()
    os.makedirs(partial, exist_ok=True)
    try:
      self._resume()
    except FileNotFoundError:
      self.clear()
    except (OSError, ValueError, KeyError, TypeError) as error:
      logging.warning("%s is begun anew: %s", partial, error)
      self.clear()

  def _resume(self):
    with open(self._path(_PROGRESS), encoding="utf-8") as opened:
      found = from_checked_json(opened.read())
    if found["identity"] != self._identity:
      raise ValueError(f"it was of another teacher ({differences(found['identity'], self._identity)})")
    self.open(found["shapes"], found["inputs"])
    for name, file in self._files.items():
      recorded = found["examples"] * self.bytes_of(name)
      if os.path.getsize(file.name) < recorded:
        raise ValueError(f"{file.name} is shorter than it was")
      file.truncate(recorded)
      file.seek(recorded)
    self.examples, self._inputs, self._crc32 = found["examples"], found["inputs"], found["crc32"]

  def clear(self):
    """Forgets what is there."""
    self.close()
    self._keep_only()
    self._forget()

  def _forget(self):
    self.shapes: Any = None
    self.examples, self._inputs, self._files, self._crc32 = 0, None, {}, {}

  def open(self, shapes, inputs):
    """Opens a file for each of dict from name to shape of an example; inputs as `specs_of_inputs` returns them."""
    self.shapes, self._inputs = shapes, inputs
    for name in shapes:
      file = self._path(file_name(name))
      self._files[name] = open(file, "r+b" if os.path.exists(file) else "wb")  # noqa: SIM115  (`close` does)

  def bytes_of(self, name):
    """Of an example."""
    return math.prod(self.shapes[name]) * dtype_of(name, self._identity["dtype"]).itemsize

  def is_of(self, dataset):
    """Whether the examples that were written are the first of a data set."""
    if differing_specs(self._inputs, specs_of_inputs(dataset)):
      return False
    return first_difference(dataset, self._stored_fingerprints()) in (None, self.examples)

  def _stored_fingerprints(self):
    return np.fromfile(self._path(file_name(FINGERPRINTS)), np.int64, self.examples)

  def add(self, inputs, outputs):
    """Appends a batch: nested inputs, for their fingerprints alone, and dict from name to array."""
    rows = len(outputs[OUTPUTS])
    found = fingerprints(inputs).numpy()
    self._files[FINGERPRINTS].write(found.data)
    self._crc32[FINGERPRINTS] = zlib.crc32(found.data, self._crc32.get(FINGERPRINTS, 0))
    for name, array in outputs.items():
      with np.errstate(over="ignore"):  # Found below, and said.
        kept = np.ascontiguousarray(array, self._identity["dtype"])
      if not np.isfinite(kept).all():
        why = f"too large for {self._identity['dtype']}" if np.isfinite(array).all() else "not finite"
        first, *position = np.argwhere(~np.isfinite(kept))[0].tolist()
        raise ValueError(f"the teacher's {name} is {why} in example {self.examples + first}, at {position}.")
      self._files[name].write(kept.data)
      self._crc32[name] = zlib.crc32(kept.data, self._crc32.get(name, 0))
    self.examples += rows
    if time.monotonic() - self._recorded > _RECORD_SECONDS:
      self._record(_PROGRESS, {"identity": self._identity})
      self._recorded = time.monotonic()

  def finish(self):
    """Leaves a complete cache."""
    self._record(MANIFEST, {**self._identity, "tensorflow": tf.__version__})
    self.close()
    self._keep_only(MANIFEST, *map(file_name, self.shapes))

  def close(self):
    for file in self._files.values():
      file.close()

  def _record(self, name, content):
    for file in self._files.values():
      file.flush()
      os.fsync(file.fileno())
    content = {**content, "examples": self.examples, "inputs": self._inputs, "shapes": self.shapes}
    write_text(self._path(name), to_checked_json({**content, "crc32": self._crc32}))

  def _keep_only(self, *names):
    for name in set(os.listdir(self._partial)).difference(names):
      path = self._path(name)
      shutil.rmtree(path) if os.path.isdir(path) else os.remove(path)  # A kill may leave a temporary folder.

  def _path(self, name):
    return os.path.join(self._partial, name)


def _write(teacher, dataset, partial, identity):
  from tqdm import tqdm

  answer = _answerer(teacher, identity["layers"], dataset)
  waiting = collections.deque()
  # Writing and hashing go on beside the teacher's work; one thread keeps the order.
  with contextlib.closing(_Writer(partial, identity)) as writer, concurrent.futures.ThreadPoolExecutor(1) as pool:
    if writer.examples and not writer.is_of(dataset):
      logging.warning("%s is begun anew: it was of other data", partial)
      writer.clear()
    done, seen = writer.examples, 0
    with tqdm(desc="teacher", unit="example", dynamic_ncols=True) as bar:
      for inputs in inputs_of(dataset):
        rows = _rows(inputs)
        new = _cut(inputs, max(0, done - seen), rows)
        seen += rows
        bar.update(rows)
        if seen <= done:
          continue
        outputs = answer(new)
        if writer.shapes is None:
          shapes = {name: list(array.shape[1:]) for name, array in outputs.items()}
          writer.open({**shapes, FINGERPRINTS: []}, specs_of_inputs(dataset))
        if bar.total is None:
          bar.total = _check_space(writer, dataset, rows, partial)
        waiting.append(pool.submit(writer.add, new, outputs))
        if len(waiting) > _WAITING:
          waiting.popleft().result()
      for future in waiting:
        future.result()
      bar.total = seen
    if not seen:
      raise ValueError("the data set has no examples.")
    writer.finish()


def _answerer(teacher, layers, dataset):
  """A function from a batch to dict from "outputs" and names of layers' features to arrays."""
  spec = dataset.element_spec[0] if isinstance(dataset.element_spec, tuple) else dataset.element_spec
  spec = tf.nest.map_structure(lambda s: tf.TensorSpec([None, *s.shape[1:]], s.dtype), spec)  # One trace for all sizes.
  read = tf.function(lambda x: teacher(x, layers) if layers else teacher(x), input_signature=[spec])

  def answer(inputs):
    outputs, features = read(inputs)
    if tf.nest.is_nested(outputs):
      raise ValueError(
        f"a cache keeps one output and the features of layers; this teacher gives a {type(outputs).__name__}."
      )
    features = {name_of_layer(layer): feature.numpy() for layer, feature in features.items()}
    return {OUTPUTS: outputs.numpy(), **features}

  return answer


def _check_space(writer, dataset, batch_size, partial):
  """Says what the cache will take, if the number of examples is known, and returns that number.

  Raises:
    OSError: there is less space.
  """
  batches = int(dataset.cardinality())
  if batches < 0:
    return None
  examples = batches * batch_size
  size = sum(examples * writer.bytes_of(name) for name in writer.shapes)
  free = shutil.disk_usage(partial).free + sum(writer.examples * writer.bytes_of(name) for name in writer.shapes)
  logging.info("the teacher's outputs take at most %.1f MB in %s", size / 1e6, partial)
  if size > free:
    raise OSError(
      f"the teacher's outputs take {size / 1e6:,.2f} MB, and {partial} has {free / 1e6:,.2f} MB of space: use fewer "
      "layers or views, dtype float16, or another path."
    )
  return examples


def _check(cached, teacher, dataset, identity):
  """Compares a cache with the teacher and the data that it shall be of.

  Raises:
    ValueError: it is of others.
  """
  reason, where = differences({name: cached.manifest.get(name) for name in identity}, identity), ""
  if not reason:
    first = next(inputs_of(dataset), None)
    if first is not None:
      found = _answerer(teacher, identity["layers"], dataset)(first)[OUTPUTS]
      kept = cached.outputs[0] if identity["layers"] else cached.outputs
      kept = np.float32(kept[: len(found)])
      if kept.shape != found.shape or np.abs(kept - found).max() > _TOLERANCE * np.abs(found).max():
        reason = "outputs of the first batch differ: its teacher was another, or read images otherwise, or other images"
  if not reason:
    different = first_difference(dataset, cached.fingerprints)
    if different is not None:
      reason, where = "data differ", f"the first other example is {different}; "
  if reason:
    raise ValueError(
      f"{cached.path} holds outputs of another teacher or data ({reason}): {where}use another path, or remove it."
    )


def _rows(inputs):
  return len(tf.nest.flatten(inputs)[0])


def _cut(inputs, start, stop):
  if start == 0 and stop == _rows(inputs):
    return inputs  # No copy.
  return tf.nest.map_structure(lambda array: array[start:stop], inputs)
