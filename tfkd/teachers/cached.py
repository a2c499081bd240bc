"""A teacher whose outputs lie on disk, written by `tfkd.teachers.cache`."""

import math
import os
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfkd.storage.digests import from_checked_json
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
from tfkd.teachers.precomputed import Precomputed

_BY_EXAMPLE = (np.concatenate, np.take, np.repeat, np.split, np.array_split, np.copy)


class CachedOutputs(np.memmap):
  """A memory-mapped array of a cache, whose first axis is that of the examples.

  `tfkd.data.batches` compares the fingerprints with those of its inputs. They stay with what is sliced, indexed, taken,
  split, repeated or concatenated along the first axis; other arrays that are computed from this one have none, and are
  not compared.
  """

  fingerprints = None
  """int64 [n], of the inputs that the outputs were computed from, or None."""

  def __getitem__(self, index):
    found = super().__getitem__(index)
    rows = index[0] if isinstance(index, tuple) and index else index
    if self.fingerprints is not None and np.ndim(found) and (isinstance(rows, slice) or np.ndim(rows) == 1):
      found = _with_fingerprints(found, self.fingerprints[rows])
    return found

  def __array_function__(self, function, types, args, kwargs):
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


def _with_fingerprints(array, kept):
  if kept.ndim != 1 or kept.shape != array.shape[:1]:
    return array
  array = array.view(CachedOutputs)
  array.fingerprints = kept
  return array


class CachedTeacher(Precomputed):
  """A teacher that `cache` wrote: its outputs travel with the data, and cost a step nothing.

    in_order = tfkd.data.batches(images, labels, 512, scale_pixels=True)
    cached = tfkd.teachers.cache(teacher, in_order, "cache/train")
    train = tfkd.data.batches((images, cached.outputs), labels, 128, scale_pixels=True, shuffle_seed=0)
    tfkd.Distiller(cached, student, objectives).fit(train, ...)

  Files are read through the system's page cache, which all processes of a machine share.

  Args:
    path: the folder.

  Raises:
    FileNotFoundError: there is no cache.
    ValueError: a file is damaged, or of another version of the format.
  """

  def __init__(self, path: str | os.PathLike):
    self.path = os.fspath(path)
    self.manifest = _read_manifest(self.path)
    """What it holds, and of which teacher and data: see the file."""
    self.fingerprints = self._map(FINGERPRINTS, np.memmap)
    """int64 [n], of the inputs of each example, see `tfkd.storage.fingerprints`."""
    outputs = self._map(OUTPUTS, CachedOutputs)
    features = {layer: self._map(name_of_layer(layer), CachedOutputs) for layer in self.manifest["layers"]}
    self.outputs = (outputs, features) if features else outputs
    """Memory-mapped [n, classes], or a pair of that and a dict from layer to memory-mapped [n, ...]; n counts the views
    of an example, too. `tfkd.data.batches` checks that it is given the inputs that these belong to."""

  def __len__(self):
    return self.manifest["examples"]

  def describe(self) -> dict[str, Any]:
    """The description of the teacher whose outputs are stored."""
    names = ("weights", "preprocessing", "ensemble", "members")
    return {name: self.manifest[name] for name in names if name in self.manifest}

  def feature_shapes(self, layers: Sequence[str]) -> dict[str, tf.TensorShape]:
    """Static output shapes, a dict by layer name.

    Raises:
      ValueError: there is no such layer in the cache.
    """
    kept = self.manifest["layers"]
    if missing := [layer for layer in layers if layer not in kept]:
      raise ValueError(
        f"{self.path} has no features of {', '.join(missing)}, but of {', '.join(kept) or 'no layer'}: write another "
        "cache, with `layers`."
      )
    return {layer: tf.TensorShape([None, *self.manifest["shapes"][name_of_layer(layer)]]) for layer in layers}

  def zip(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Joins the outputs to a data set; `tfkd.data.batches` needs no such thing.

    Each example is compared with the one whose outputs are stored, by a fingerprint of its bytes.

    Args:
      dataset: the one that was cached, in the same order, in batches of any size; `padded_batch` needs the same size,
        since padding is part of an example. Shuffle and repeat the result of this, unbatched.

    Returns:
      `tf.data.Dataset` of the same, with the pair (inputs, outputs) in the place of inputs: ((inputs, outputs), labels,
      ...), or ((inputs, outputs),) of a data set of inputs alone, as `fit` reads them. At the first example that is not
      the cached one it raises `tf.errors.InvalidArgumentError`.

    Raises:
      ValueError: the inputs are of other types or shapes.
    """
    reason = differing_specs(self.manifest["inputs"], specs_of_inputs(dataset))
    if reason:
      raise ValueError(
        f"{self.path} is of other inputs ({reason}): scale and convert the data set as the one that `cache` was given."
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
    """Position after a batch whose examples are the cached ones from `start` on."""
    stop = start + len(found)
    if stop > len(self):
      raise ValueError(
        f"{self.path} has {len(self)} examples, and the data set more: it is another one, or repeated before `zip` "
        "instead of after it."
      )
    wrong = np.flatnonzero(found != self.fingerprints[start:stop])
    if len(wrong):
      raise ValueError(
        f"example {start + wrong[0]} of the data set is not the one whose outputs {self.path} holds: expected the data "
        "that were cached, in their order, scaled and augmented alike; shuffle after `zip`, or write another cache."
      )
    return np.int64(stop)

  def _rows(self, array, start, stop):
    rows = tf.numpy_function(lambda a, b: np.asarray(array[a:b]), [start, stop], tf.as_dtype(array.dtype))
    return tf.ensure_shape(rows, [None, *array.shape[1:]])

  def _map(self, name, kind):
    file = os.path.join(self.path, file_name(name))
    shape, dtype = (len(self), *self.manifest["shapes"][name]), dtype_of(name, self.manifest["dtype"])
    expected = math.prod(shape) * dtype.itemsize
    found = os.path.getsize(file) if os.path.exists(file) else 0
    if found != expected:
      raise ValueError(f"{file} has {found} bytes instead of {expected}: remove {self.path} and write it again.")
    array = kind(file, dtype, "r", shape=shape)
    if zlib.crc32(array) != self.manifest["crc32"][name]:
      raise ValueError(f"{file} is not as it was written (its CRC-32 differs): remove {self.path} and write it again.")
    if kind is CachedOutputs:
      array.fingerprints = self.fingerprints
    return array


def _read_manifest(path):
  file = os.path.join(path, MANIFEST)
  if not os.path.exists(file):
    raise FileNotFoundError(f"{path} holds no teacher's outputs: there is no {MANIFEST}. Write it with `cache`.")
  try:
    with open(file, encoding="utf-8") as opened:
      manifest = from_checked_json(opened.read())
    found = manifest["format"]
  except (ValueError, KeyError, TypeError) as error:
    raise ValueError(f"{file} is damaged ({error}): remove {path} and write it again.") from error
  if found != FORMAT:
    raise ValueError(f"{path} has format {found}, and this version reads {FORMAT}: remove it and write it again.")
  return manifest
