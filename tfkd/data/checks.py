"""Checks of the arguments of `tfkd.data.batches`."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfkd.data.transforms import Transform


def check_arrays(inputs: Any, others: tuple, labels: Any, weights: Any, views: int | None) -> int:
  """Checks that all arrays hold the same number of examples.

  Args:
    inputs: array [n, ...], or a dict or tuple of arrays.
    others: nested arrays [views * n, ...].
    labels, weights: nested arrays [n, ...], or None.
    views: number of augmentation views, or None.

  Returns:
    n.

  Raises:
    ValueError: a part is not an array, or has another length, or there are weights without labels.
  """
  for name, nested in (("inputs", inputs), ("further inputs", others), ("labels", labels), ("sample_weight", weights)):
    _check_nested(name, nested)
  if weights is not None and labels is None:
    raise ValueError("sample_weight needs labels, which it weighs; got labels=None.")
  aligned = [inputs, [] if labels is None else labels, [] if weights is None else weights]
  parts = tf.nest.flatten([aligned, others])
  if not tf.nest.flatten(inputs) or any(array is None for array in parts):
    raise ValueError("inputs and labels must be arrays [n, ...] in each of their entries; got an empty one, or None.")
  n = len(tf.nest.flatten(inputs)[0])
  lengths = {len(array) for array in tf.nest.flatten(aligned)}
  if len(lengths) > 1:
    found = " and ".join(map(str, sorted(lengths, key=lambda length: length != n)))
    names = "inputs and labels" if weights is None else "inputs, labels and sample_weight"
    raise ValueError(f"{names} must have the same length; got {found}.")
  for array in tf.nest.flatten(others):
    if len(array) != n * (views or 1):
      of_views = f", {n} examples times {views} views" if views else ""
      raise ValueError(f"further inputs must have length {n * (views or 1)}{of_views}; got {len(array)}.")
  return n


def check_batches(n: int, batch_size: int, others: tuple, transforms: Sequence[Transform]) -> None:
  """Checks the batch size, and that further inputs are not joined to examples that change in every epoch.

  Raises:
    ValueError: batch_size is out of range, or a transform changes examples in every epoch.
  """
  if not 1 <= batch_size <= n:
    raise ValueError(f"batch_size must be between 1 and the number of examples, {n}; got {batch_size}.")
  random = [type(transform).__name__ for transform in transforms if not transform.is_repeatable]
  if others and random:
    raise ValueError(
      f"{random[0]} changes inputs in every epoch, so that further inputs, such as cached teacher outputs, would not "
      "match them: leave it out, or give Augment fixed views."
    )


def _check_nested(name, nested):
  if isinstance(nested, tf.data.Dataset):
    raise ValueError(
      f"{name} must be arrays; got a tf.data.Dataset: use `dataset.batch(batch_size)` in place of `batches`, and join "
      "cached outputs by `CachedTeacher.zip`."
    )
  if isinstance(nested, list):
    raise ValueError(
      f"{name} must be an array, or a dict or tuple of arrays; got a list: use `np.asarray`, or for a model of several "
      "inputs a dict, or ((first, second),)."
    )
  if isinstance(nested, (dict, tuple)):
    for part in nested.values() if isinstance(nested, dict) else nested:
      _check_nested(name, part)
  elif nested is not None:
    if not getattr(nested, "shape", ()) or isinstance(nested, (tf.RaggedTensor, tf.SparseTensor)):
      raise ValueError(f"{name} must be dense arrays [n, ...]; got a {type(nested).__name__}.")
    _check_dtype(name, nested)


def _check_dtype(name, array):
  """Raises ValueError for an array that TensorFlow cannot hold: times, records, or objects other than strings."""
  dtype = getattr(array, "dtype", None)
  if not isinstance(dtype, np.dtype):
    return
  if dtype.kind == "O":
    others = {type(part).__name__ for part in array.flat if not isinstance(part, (str, bytes))}
    is_known, found = not others, f"objects of type {', '.join(sorted(others))}"
  else:
    is_known, found = dtype.kind in "SU" or _is_of_tensors(dtype), str(dtype)
  if not is_known:
    raise ValueError(
      f"{name} must be numbers, booleans or strings; got {found}: convert them with `astype`, or pad lists of "
      "different lengths to one array."
    )


def _is_of_tensors(dtype):
  try:
    tf.as_dtype(dtype)
  except TypeError:
    return False
  return True
