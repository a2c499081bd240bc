"""A teacher whose outputs lie on disk, written by `tfkd.teachers.cache`."""

import math
import os
import zlib

import numpy as np
import tensorflow as tf

from tfkd.files import from_checked_json
from tfkd.teachers.precomputed import Precomputed

FORMAT = 2
MANIFEST = "manifest.json"


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

  def __init__(self, path):
    self.path = os.fspath(path)
    self.manifest = _read_manifest(self.path)
    """What it holds, and of which teacher and data: see the file."""
    arrays = {name: self._map(name) for name in self.manifest["shapes"]}
    outputs = arrays.pop("outputs")
    self.outputs = (outputs, arrays) if arrays else outputs
    """Memory-mapped [n, classes], or a pair of that and a dict from layer to memory-mapped [n, ...]; n counts the views
    of an example, too."""

  def __len__(self):
    return self.manifest["examples"]

  def tap_shapes(self, layers):
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
    return {layer: tf.TensorShape([None, *self.manifest["shapes"][layer]]) for layer in layers}

  def zip(self, dataset):
    """Joins the outputs to a data set; `tfkd.data.batches` needs no such thing.

    Args:
      dataset: what was cached, in the same order, in batches of any size. Shuffle what comes out of this, unbatched.

    Returns:
      `tf.data.Dataset` of the same, with the pair (inputs, outputs) in the place of inputs.
    """
    with_labels = isinstance(dataset.element_spec, tuple)

    def join(start, element):
      inputs = element[0] if with_labels else element
      stop = start + tf.cast(tf.shape(tf.nest.flatten(inputs)[0])[0], tf.int64)
      outputs = tf.nest.map_structure(lambda array: self._rows(array, start, stop), self.outputs)
      pair = (inputs, outputs)
      return stop, (pair, *element[1:]) if with_labels else pair

    return dataset.scan(tf.constant(0, tf.int64), join)

  def _rows(self, array, start, stop):
    def read(start, stop):
      if stop > len(self):
        raise ValueError(f"{self.path} has {len(self)} examples, and the data set more: it is another one.")
      return np.asarray(array[start:stop])

    rows = tf.numpy_function(read, [start, stop], tf.as_dtype(array.dtype))
    return tf.ensure_shape(rows, [None, *array.shape[1:]])

  def _map(self, name):
    file = os.path.join(self.path, file_name(name))
    shape, dtype = (len(self), *self.manifest["shapes"][name]), np.dtype(self.manifest["dtype"])
    expected = math.prod(shape) * dtype.itemsize
    found = os.path.getsize(file) if os.path.exists(file) else 0
    if found != expected:
      raise ValueError(f"{file} has {found} bytes instead of {expected}: remove {self.path} and write it again.")
    array = np.memmap(file, dtype, "r", shape=shape)
    if zlib.crc32(array) != self.manifest["crc32"][name]:
      raise ValueError(f"{file} is not as it was written (its CRC-32 differs): remove {self.path} and write it again.")
    return array


def file_name(name):
  """File of "outputs" or of a layer, whose name may have slashes."""
  return f"{name.replace('/', '--')}.bin"


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
