"""Names, files and types of the arrays in a cache of teacher outputs."""

import urllib.parse
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tfkd import losses

FORMAT = 4
READABLE = (3, FORMAT)
MANIFEST = "manifest.json"
OUTPUTS, FINGERPRINTS = "outputs", "fingerprints"
TOP_K = ("values", "classes", "log_rest")
"""Keys of an output of which the largest logits are known, in data sets; see `tfkd.losses.TopK`."""
_LOG_REST = "log_rest"
_CLASS_DTYPES = ("uint8", "uint16", "int32")


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
  """Inverts `arrays_of_outputs`, with a tuple for any sequence, since `tf.data` converts lists to tensors.

  Of the largest logits, each output is a dict with the keys `TOP_K`.
  """
  found = {name: array for name, array in arrays.items() if is_output(name)}
  for name in found:
    classes = next((array for other, array in arrays.items() if other in _classes_names(name)), None)
    if classes is not None:
      parts = arrays[name], classes, arrays[f"{_LOG_REST}/{name}"]
      found[name] = dict(zip(TOP_K, parts, strict=True))
  if list(found) == [OUTPUTS]:
    return found[OUTPUTS]
  if all(name.startswith(f"{OUTPUTS}/") for name in found):
    return {name.removeprefix(f"{OUTPUTS}/"): part for name, part in found.items()}
  return tuple(found[f"{OUTPUTS}:{index}"] for index in range(len(found)))


def largest(arrays: Mapping[str, tf.Tensor], k: int) -> dict[str, tf.Tensor]:
  """Returns the arrays of the k largest logits of each output, in place of the outputs.

  Args:
    arrays: see `arrays_of_outputs`; other arrays are returned as they are.
    k: number of logits to keep.

  Raises:
    ValueError: an output has fewer than k classes, or is no class distribution.
  """
  found = {}
  for name, array in arrays.items():
    found[name] = array
    if is_output(name):
      if array.shape.rank < 2 or array.shape[-1] < k:
        raise ValueError(
          f"top_k is {k}, and the teacher's {name} have shape {array.shape}: expected [batch, ..., classes] with at "
          f"least {k} classes."
        )
      kept = losses.top_k(array, k)
      index = next(i for i, dtype in enumerate(_CLASS_DTYPES) if array.shape[-1] - 1 <= np.iinfo(dtype).max)
      found |= {name: kept.values, f"{_LOG_REST}/{name}": kept.log_rest}
      found[_classes_names(name)[index]] = tf.cast(kept.classes, _CLASS_DTYPES[index])
  return found


def _classes_names(name: str) -> list[str]:
  """Returns the possible array names of an output's classes, which begin with their type."""
  return [f"{dtype}/{name}" for dtype in _CLASS_DTYPES]


def name_of_layer(layer: str) -> str:
  """Returns the array name of a layer's features, which no output and no other array has."""
  return f"layers/{layer}"


def file_name(name: str) -> str:
  """Returns the file name of an array; names of layers may contain slashes."""
  return f"{urllib.parse.quote(name, safe='')}.bin"


def dtype_of(name: str, dtype: str) -> np.dtype:
  """Returns the element type of an array in a cache with outputs of this dtype."""
  prefix = name.partition("/")[0]
  return np.dtype(np.int64 if name == FINGERPRINTS else prefix if prefix in _CLASS_DTYPES else dtype)


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
