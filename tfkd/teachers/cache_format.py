"""Names, files and types of the arrays in a cache of teacher outputs."""

import urllib.parse
from typing import Any

import numpy as np
import tensorflow as tf

FORMAT = 3
MANIFEST = "manifest.json"
OUTPUTS, FINGERPRINTS = "outputs", "fingerprints"


def name_of_layer(layer: str) -> str:
  """Returns the array name of a layer's features, which differs from "outputs" and "fingerprints" for every layer."""
  return f"layers/{layer}"


def file_name(name: str) -> str:
  """Returns the file name of an array; names of layers may contain slashes."""
  return f"{urllib.parse.quote(name, safe='')}.bin"


def dtype_of(name: str, dtype: str) -> np.dtype:
  """Returns the element type of an array in a cache with outputs of this dtype."""
  return np.dtype(np.int64 if name == FINGERPRINTS else dtype)


def specs_of_inputs(dataset: tf.data.Dataset) -> list[list[Any]]:
  """Lists types and shapes of the inputs of a data set as [dtype, [dimension or None, ...]], without the batch axis.

  Raises:
    ValueError: dataset is not a `tf.data.Dataset` of batches of dense tensors.
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


def differing_specs(stored: list[list[Any]], found: list[list[Any]]) -> str:
  """Describes how two results of `specs_of_inputs` differ; empty if they are compatible."""
  fit = len(stored) == len(found) and all(
    a[0] == b[0] and tf.TensorShape(a[1]).is_compatible_with(b[1]) for a, b in zip(stored, found, strict=True)
  )
  return "" if fit else f"{_in_words(stored)} there, {_in_words(found)} now"


def _in_words(specs):
  return ", ".join(f"{dtype} {shape}" for dtype, shape in specs)
