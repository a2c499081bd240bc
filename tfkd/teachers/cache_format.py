"""Names, files and types of the arrays in a cache of teacher outputs."""

import urllib.parse
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

FORMAT = 3
MANIFEST = "manifest.json"
OUTPUTS, FINGERPRINTS = "outputs", "fingerprints"


def arrays_of_outputs(outputs: Any) -> dict[str, Any]:
  """Returns the outputs by array name: "outputs" for one, "outputs/<key>" of a dict, "outputs:<index>" of a sequence.

  Raises:
    ValueError: outputs are nested more deeply, or a key is not a string.
  """
  if not tf.nest.is_nested(outputs):
    return {OUTPUTS: outputs}
  if isinstance(outputs, Mapping):
    arrays = {f"{OUTPUTS}/{key}" if isinstance(key, str) else key: part for key, part in outputs.items()}
  else:
    arrays = {f"{OUTPUTS}:{index}": part for index, part in enumerate(outputs)}
  if not arrays or any(not isinstance(name, str) or tf.nest.is_nested(part) for name, part in arrays.items()):
    found = tf.nest.map_structure(lambda _: "tensor", outputs)
    raise ValueError(
      f"a cache stores a tensor, or a list, tuple or dict of tensors with strings as keys; the teacher returns {found}."
    )
  return arrays


def is_output(name: str) -> bool:
  """Returns whether an array holds an output, and not features or fingerprints."""
  return name == OUTPUTS or name.startswith((f"{OUTPUTS}/", f"{OUTPUTS}:"))


def outputs_of_arrays(arrays: Mapping[str, Any]) -> Any:
  """Inverts `arrays_of_outputs`, with a tuple for any sequence, since `tf.data` converts lists to tensors."""
  names = [name for name in arrays if is_output(name)]
  if names == [OUTPUTS]:
    return arrays[OUTPUTS]
  if all(name.startswith(f"{OUTPUTS}/") for name in names):
    return {name.removeprefix(f"{OUTPUTS}/"): arrays[name] for name in names}
  return tuple(arrays[f"{OUTPUTS}:{index}"] for index in range(len(names)))


def name_of_layer(layer: str) -> str:
  """Returns the array name of a layer's features, which no output and no other array has."""
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
