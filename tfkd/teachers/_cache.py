"""Stores the outputs of a teacher on disk, once for all epochs of all students."""

import collections
import concurrent.futures
import contextlib
import numbers
import os
import shutil
from collections.abc import Sequence
from typing import Any

import filelock
import numpy as np
import tensorflow as tf
from absl import logging

from tfkd.teachers.cache_format import (
  FINGERPRINTS,
  FORMAT,
  arrays_of_outputs,
  is_output,
  largest,
  name_of_layer,
  specs_of_inputs,
)
from tfkd.teachers.cache_writer import CacheWriter
from tfkd.teachers.cached import CachedTeacher
from tfkd.teachers.frozen import as_teacher
from tfkd.teachers.provenance import check_order, differences, first_difference, inputs_of

_DTYPES = ("float16", "float32")
_WAITING = 4  # Batches that are computed and not yet written: limits memory.
_TOLERANCE = 0.02  # Of the largest output. Devices and kernels differ by less, teachers by more.


def cache(
  teacher: Any,
  dataset: tf.data.Dataset,
  path: str | os.PathLike,
  layers: Sequence[str] = (),
  dtype: str = "float32",
  top_k: int | None = None,
) -> CachedTeacher:
  """Runs a teacher once over a data set and stores its outputs on disk.

  A new call resumes the work of a killed process; `path` appears when the cache is complete. An existing cache is
  compared with this teacher and these data, and used. Concurrent calls with one path wait for the first one.

  The cache also stores a fingerprint of the inputs of each example, 8 bytes. Inputs to which outputs are joined later
  are compared with it, which takes 0.2 ms per megabyte on one core: 0.35 ms for a batch of 128 images of 32 x 32 x 3,
  below 1 % of a step of `svhn_cnnx0.5` on two cores.

  Args:
    teacher: model or function from a batch to logits: a tensor, or a list, tuple or dict of tensors (see
      `tfkd.teachers`).
    dataset: finite `tf.data.Dataset` of batches of inputs or of (inputs, labels, ...), in the same order in each
      iteration: not shuffled, and augmented only by fixed views, as of `tfkd.data.Augment(function, views=8)`.
    path: directory to write.
    layers: names of teacher layers, or of features that a function returns, which are stored too, for objectives on
      features.
    dtype: "float32", or "float16" for half the size and three significant digits.
    top_k: number of logits of each output to keep, the largest, with their classes and the log-sum of the others; None
      keeps all. `SoftTargets` and `Decoupled` read them, see `tfkd.losses.with_rest`; other objectives on outputs
      refuse. 32 of 1,000 classes take a twentieth of the bytes.

  Returns:
    The `CachedTeacher` at path.

  Raises:
    ValueError: the data set starts with other examples when it is iterated again, or is empty; the cache at path has
      another teacher, other data, layers, dtype or top_k; an output has fewer than top_k classes; or the teacher
      returns deeper structures, outputs that do not have one entry per example, or values that are not finite or too
      large for the dtype.
    OSError: the disk has too little space left.
  """
  if dtype not in _DTYPES:
    raise ValueError(f"dtype must be one of {', '.join(_DTYPES)}; got {dtype!r}.")
  if top_k is not None and (not isinstance(top_k, numbers.Integral) or isinstance(top_k, bool) or top_k < 1):
    raise ValueError(f"top_k must be a whole number >= 1, or None for all logits; got {top_k!r}.")
  teacher = as_teacher(teacher)
  kept = {"dtype": dtype, "layers": sorted(set(layers)), "top_k": None if top_k is None else int(top_k)}
  identity = {"format": FORMAT, **kept, **teacher.describe()}
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


def _write(teacher, dataset, partial, identity):
  from tqdm import tqdm

  run = _runner(teacher, identity, dataset)
  waiting = collections.deque()
  # One thread writes and hashes while the teacher runs, in the order of the batches.
  with contextlib.closing(CacheWriter(partial, identity)) as writer, concurrent.futures.ThreadPoolExecutor(1) as pool:
    if writer.examples and not writer.is_prefix_of(dataset):
      logging.warning("discarding the partial cache %s: it has outputs of other data", partial)
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
        outputs = run(new)
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


def _runner(teacher, identity, dataset):
  """Returns a function from a batch to a dict of arrays: outputs, or their largest logits, and features of layers."""
  layers = identity["layers"]
  spec = dataset.element_spec[0] if isinstance(dataset.element_spec, tuple) else dataset.element_spec
  spec = tf.nest.map_structure(lambda s: tf.TensorSpec([None, *s.shape[1:]], s.dtype), spec)  # One trace for all sizes.
  read = tf.function(lambda x: teacher(x, layers) if layers else teacher(x), input_signature=[spec])

  def run(inputs):
    outputs, features = read(inputs)
    arrays = arrays_of_outputs(outputs) | {name_of_layer(layer): features[layer] for layer in layers}
    rows = _rows(inputs)
    for name, array in arrays.items():
      if array.shape.rank == 0 or array.shape[0] != rows:
        raise ValueError(
          f"the teacher's {name} has shape {array.shape} for {rows} examples: return one entry per example, first axis."
        )
    if identity["top_k"] is not None:
      arrays = largest(arrays, identity["top_k"])
    return {name: array.numpy() for name, array in arrays.items()}

  return run


def _check_space(writer, dataset, batch_size, partial):
  """Checks the disk space for a data set of known length, and returns its number of examples.

  Raises:
    OSError: the disk has too little space.
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
  """Compares a cache with a teacher and data.

  Raises:
    ValueError: it has outputs of another teacher or of other data.
  """
  expected = {name: value for name, value in identity.items() if name != "format"}  # Older ones can be read.
  reason, where = differences({name: cached.manifest.get(name) for name in expected}, expected), ""
  if not reason:
    first = next(inputs_of(dataset), None)
    if first is not None:
      found = _runner(teacher, identity, dataset)(first)
      found = {name: array for name, array in found.items() if is_output(name)}
      if set(found) != {name for name in cached.arrays if is_output(name)}:
        reason = f"outputs of another structure, now {', '.join(found)}"
      elif any(_differ(cached.arrays[name][: len(array)], array) for name, array in found.items()):
        reason = "outputs of the first batch differ: the teacher, its preprocessing or the inputs changed"
  if not reason:
    different = first_difference(dataset, cached.fingerprints)
    if different is not None:
      reason, where = "data differ", f"the first different example is {different}; "
  if reason:
    raise ValueError(
      f"{cached.path} has outputs of another teacher or data ({reason}): {where}use another path, or remove the cache."
    )


def _differ(kept, found):
  kept, found = np.float32(kept), np.float32(found)
  return kept.shape != found.shape or found.size and np.abs(kept - found).max() > _TOLERANCE * np.abs(found).max()


def _rows(inputs):
  return len(tf.nest.flatten(inputs)[0])


def _cut(inputs, start, stop):
  if start == 0 and stop == _rows(inputs):
    return inputs  # No copy.
  return tf.nest.map_structure(lambda array: array[start:stop], inputs)
