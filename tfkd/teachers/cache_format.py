"""Names, files and types of what a cache of teacher outputs holds."""

import urllib.parse

import numpy as np
import tensorflow as tf

FORMAT = 3
MANIFEST = "manifest.json"
OUTPUTS, FINGERPRINTS = "outputs", "fingerprints"


def name_of_layer(layer):
  """Name of a layer's features beside "outputs" and "fingerprints", which a layer may be called, too."""
  return f"layers/{layer}"


def file_name(name):
  """File of "outputs", "fingerprints" or a layer, whose name may have slashes."""
  return f"{urllib.parse.quote(name, safe='')}.bin"


def dtype_of(name, dtype):
  """Element type of "outputs", "fingerprints" or a layer in a cache of a type."""
  return np.dtype(np.int64 if name == FINGERPRINTS else dtype)


def specs_of_inputs(dataset):
  """Types and shapes of a data set's inputs: a list of [dtype, [dimension or None, ...]], without the batch's.

  Raises:
    ValueError: no `tf.data.Dataset` of batches of dense tensors.
  """
  if not isinstance(dataset, tf.data.Dataset):
    raise ValueError(
      f"expected a tf.data.Dataset of batches; got a {type(dataset).__name__}: make one with tfkd.data.batches."
    )
  spec = dataset.element_spec
  specs = tf.nest.flatten(spec[0] if isinstance(spec, tuple) else spec)
  for spec in specs:
    if not isinstance(spec, tf.TensorSpec) or spec.shape.rank == 0:
      raise ValueError(
        f"inputs must be batches of dense tensors; the data set has {spec}: use `batch`, or `to_tensor`."
      )
  return [[s.dtype.name, s.shape[1:].as_list() if s.shape.rank else None] for s in specs]


def differing_specs(stored, found):
  """What differs between two results of `specs_of_inputs`, in words; empty where they are compatible."""
  fit = len(stored) == len(found) and all(
    a[0] == b[0] and tf.TensorShape(a[1]).is_compatible_with(b[1]) for a, b in zip(stored, found, strict=True)
  )
  return "" if fit else f"{_in_words(stored)} there, {_in_words(found)} now"


def _in_words(specs):
  return ", ".join(f"{dtype} {shape}" for dtype, shape in specs)
