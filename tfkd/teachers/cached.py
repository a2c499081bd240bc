"""Teachers whose outputs `tfkd.teachers.cache` stored on disk."""

import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfkd.storage.digests import from_checked_json
from tfkd.storage.fingerprints import fingerprints
from tfkd.teachers.cache_arrays import Blocks, CachedOutputs
from tfkd.teachers.cache_format import (
  FINGERPRINTS,
  FORMAT,
  MANIFEST,
  READABLE,
  differing_specs,
  dtype_of,
  file_name,
  name_of_layer,
  outputs_of_arrays,
  specs_of_inputs,
)
from tfkd.teachers.precomputed import Precomputed


class CachedTeacher(Precomputed):
  """Reads teacher outputs that `cache` stored; the data set carries them to the training step.

    in_order = tfkd.data.batches(images, labels, 512, scale_pixels=True)
    cached = tfkd.teachers.cache(teacher, in_order, "cache/train")
    train = tfkd.data.batches((images, cached.outputs), labels, 128, scale_pixels=True, shuffle_seed=0)
    tfkd.Distiller(cached, student, objectives).fit(train, ...)

  Files are memory-mapped, so that all processes of a machine share the system's page cache. Opening reads none of them:
  blocks of about a megabyte are compared with their CRC-32 when they are first used. A damaged block raises there, in a
  data set as `tf.errors.InvalidArgumentError`.

  Args:
    path: directory of the cache.

  Raises:
    FileNotFoundError: there is no cache at path.
    ValueError: a file has another size than was written, the manifest is damaged, or the format has another version.
  """

  def __init__(self, path: str | os.PathLike):
    self.path = os.fspath(path)
    self.manifest = _read_manifest(self.path)
    """Contents of manifest.json: shapes and checksums of the arrays, and the descriptions of teacher and inputs."""
    self.fingerprints = self._map(FINGERPRINTS)
    """int64 [n], one per example, see `tfkd.storage.fingerprints`."""
    self.arrays = {name: self._map(name) for name in self.manifest["shapes"] if name != FINGERPRINTS}
    """Memory-mapped [n, ...] by the names of `tfkd.teachers.cache_format`."""
    outputs = outputs_of_arrays(self.arrays)
    features = {layer: self.arrays[name_of_layer(layer)] for layer in self.manifest["layers"]}
    self.outputs = (outputs, features) if features else outputs
    """Memory-mapped [n, classes], or a dict or tuple of such arrays if the teacher has several outputs; with layers a
    pair of that and a dict from layer to memory-mapped [n, ...]. n is the number of examples times augmentation views.
    `tfkd.data.batches` checks that its inputs belong to these outputs."""

  def verify(self) -> None:
    """Reads all files and compares them with their CRC-32.

    Raises:
      ValueError: one was changed since it was written.
    """
    for array in (self.fingerprints, *self.arrays.values()):
      np.asarray(array)

  @property
  def top_k(self) -> int | None:
    """Number of logits that are stored of each output; None for all."""
    return self.manifest.get("top_k")

  def __len__(self) -> int:
    return self.manifest["examples"]

  def describe(self) -> dict[str, Any]:
    """Returns the description of the teacher whose outputs are stored."""
    names = ("weights", "preprocessing", "ensemble", "members")
    return {name: self.manifest[name] for name in names if name in self.manifest}

  def feature_shapes(self, layers: Sequence[str]) -> dict[str, tf.TensorShape]:
    """Returns static output shapes by layer name.

    Raises:
      ValueError: the cache lacks a layer.
    """
    kept = self.manifest["layers"]
    if missing := [layer for layer in layers if layer not in kept]:
      raise ValueError(
        f"{self.path} has no features of {', '.join(missing)}; it has {', '.join(kept) or 'none'}: write another cache "
        "and pass these layers."
      )
    return {layer: tf.TensorShape([None, *self.manifest["shapes"][name_of_layer(layer)]]) for layer in layers}

  def zip(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Joins the outputs to any data set. `tfkd.data.batches` joins them itself.

    Compares each example with the cached one by a fingerprint of its bytes.

    Args:
      dataset: the data set that was cached, in the same order, in batches of any size; `padded_batch` needs the same
        size, since padding is part of an example. To shuffle or repeat, unbatch the returned data set.

    Returns:
      `tf.data.Dataset` with the pair (inputs, outputs) in place of inputs: ((inputs, outputs), labels, ...), or
      ((inputs, outputs),) for a data set of inputs alone, as `fit` reads them. Iteration raises
      `tf.errors.InvalidArgumentError` at the first example that is not the cached one.

    Raises:
      ValueError: the inputs have other types or shapes.
    """
    reason = differing_specs(self.manifest["inputs"], specs_of_inputs(dataset))
    if reason:
      raise ValueError(
        f"{self.path} has outputs of other inputs ({reason}): scale and convert the data set as when it was cached."
      )

    has_labels = isinstance(dataset.element_spec, tuple)

    def join(start, element):
      inputs = element[0] if has_labels else element
      stop = tf.numpy_function(self._checked_stop, [start, fingerprints(inputs)], tf.int64)
      stop = tf.ensure_shape(stop, [])
      outputs = tf.nest.map_structure(lambda array: self._rows(array, start, stop), self.outputs)
      return stop, ((inputs, outputs), *(element[1:] if has_labels else ()))

    return dataset.scan(tf.constant(0, tf.int64), join)

  def _checked_stop(self, start, found):
    """Returns the position after a batch, whose examples must be the cached ones from `start` on."""
    stop = start + len(found)
    if stop > len(self):
      raise ValueError(
        f"{self.path} has {len(self)} examples, and the data set has more: use the data set that was cached, and "
        "repeat it after `zip`."
      )
    wrong = np.flatnonzero(found != self.fingerprints[start:stop])
    if len(wrong):
      raise ValueError(
        f"example {start + wrong[0]} of the data set differs from the one whose outputs are in {self.path}: use the "
        "data that were cached, in the same order, scaling and augmentation; shuffle after `zip`, or write another "
        "cache."
      )
    return np.int64(stop)

  def _rows(self, array, start, stop):
    rows = tf.numpy_function(lambda a, b: np.asarray(array[a:b]), [start, stop], tf.as_dtype(array.dtype))
    return tf.ensure_shape(rows, [None, *array.shape[1:]])

  def _map(self, name):
    file = os.path.join(self.path, file_name(name))
    shape, dtype = (len(self), *self.manifest["shapes"][name]), dtype_of(name, self.manifest["dtype"])
    expected = math.prod(shape) * dtype.itemsize
    found = os.path.getsize(file) if os.path.exists(file) else 0
    if found != expected:
      raise ValueError(f"{file} has {found} bytes instead of {expected}: remove {self.path} and write it again.")
    array = np.asarray(np.memmap(file, dtype, "r", shape=shape))
    sums = self.manifest["crc32"][name]
    if isinstance(sums, int):  # Format 3 has one for the whole file.
      blocks = Blocks(file, array, len(self), [sums])
    else:
      blocks = Blocks(file, array, self.manifest["block_rows"], sums)
    return CachedOutputs(array, None if name == FINGERPRINTS else self.fingerprints, blocks)


def _read_manifest(path):
  file = os.path.join(path, MANIFEST)
  if not os.path.exists(file):
    raise FileNotFoundError(
      f"{path} is no cache of teacher outputs: it has no {MANIFEST}. Write one with tfkd.teachers.cache."
    )
  try:
    with open(file, encoding="utf-8") as opened:
      manifest = from_checked_json(opened.read())
    found = manifest["format"]
  except (ValueError, KeyError, TypeError) as error:
    raise ValueError(f"{file} is damaged ({error}): remove {path} and write it again.") from error
  if found not in READABLE:
    raise ValueError(f"{path} has format {found}, and this version reads {FORMAT}: remove it and write it again.")
  return manifest
