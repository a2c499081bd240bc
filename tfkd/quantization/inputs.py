"""Reads batches of a model's inputs from data in the forms that its `fit` takes."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras

from tfkd.quantization.signature import own_names

_BATCH_SIZE = 128


def input_batches(model: keras.Model, data: Any, num_batches: int) -> Iterator[list[tf.Tensor]]:
  """Yields batches of a model's inputs.

  Args:
    model: functional or `Sequential` model.
    data: data as for `model.fit`, with or without labels and sample weights: an array [n, ...]; a list, tuple or dict
      of arrays, one for each input; a tuple (inputs, labels[, sample_weight]) of arrays; or a `tf.data` data set, a
      `keras.utils.Sequence` or a generator of such batches. Teacher outputs that are paired with inputs are ignored.
    num_batches: maximum number of batches. Of arrays, batches of 128 examples are spread evenly over the array.

  Yields:
    list of tensors [batch, ...], one for each of `model.inputs`.

  Raises:
    ValueError: the data does not fit the model's inputs.
  """
  if isinstance(data, tf.data.Dataset):
    elements = data.take(num_batches)
  elif isinstance(data, keras.utils.Sequence):
    elements = (data[index] for index in range(min(len(data), num_batches)))
  elif hasattr(data, "__next__"):
    elements = itertools.islice(data, num_batches)
  else:
    elements = ((batch,) for batch in _spread(input_arrays(model, data), num_batches))
  for element in elements:
    # Batches of Keras: (inputs,), (inputs, labels) or (inputs, labels, sample_weight).
    inputs = element[0] if isinstance(element, (tuple, list)) else element
    columns = zip(_by_input(model, inputs), model.inputs, own_names(model, "input"), strict=True)
    yield [_checked(values, expected, name) for values, expected, name in columns]


def _checked(values: Any, expected: tf.Tensor, name: str) -> tf.Tensor:
  """Returns a batch as a tensor of the type of an input, after checks of its shape and values."""
  tensor = tf.convert_to_tensor(values)
  shape = tf.TensorShape(expected.shape)
  if not shape.is_compatible_with(tensor.shape):
    advice = "batch the data set" if tensor.shape.rank == shape.rank - 1 else "pass data as for the model's fit"
    raise ValueError(f"input '{name}' has shape {shape}; a batch of the data has {tensor.shape}: {advice}.")
  if tensor.dtype.is_floating and not np.isfinite(tensor).all():
    raise ValueError(f"input '{name}' of the data has values that are not finite; ranges need finite ones.")
  return tf.cast(tensor, expected.dtype)


def input_arrays(model: keras.Model, data: Any) -> list[np.ndarray]:
  """Returns one array for each input."""
  single = len(model.inputs) == 1
  if isinstance(data, tuple) and len(data) in (2, 3) and (single or _has_entries(data[0], len(model.inputs))):
    data = data[0]
  elif isinstance(data, list) and single and len(data) != 1:
    data = np.asarray(data)  # A list of examples.
  return [np.asarray(array) for array in _by_input(model, data)]


def _has_entries(data: Any, count: int) -> bool:
  return isinstance(data, (tuple, list, dict)) and len(data) == count


def _by_input(model: keras.Model, data: Any) -> list[Any]:
  """Returns the entries of a nested structure in the order of the model's inputs."""
  names = own_names(model, "input")
  if isinstance(data, dict):
    missing = [name for name in names if name not in data]
    if missing:
      raise ValueError(f"{model.name} has inputs {', '.join(names)}; the data has {', '.join(map(str, data))}.")
    return [data[name] for name in names]
  if not isinstance(data, (tuple, list)):
    data = [data]
  if len(names) == 1 and len(data) == 2:
    data = data[:1]  # The second entry holds teacher outputs.
  if len(data) != len(names):
    raise ValueError(
      f"{model.name} has {len(names)} inputs, {', '.join(map(str, names))}; the data has {len(data)}: pass a dict by "
      "name, or a data set with elements ((first, second, ...), labels)."
    )
  return list(data)


def _spread(arrays: Sequence[np.ndarray], num_batches: int) -> Iterator[list[np.ndarray]]:
  """Yields batches of examples that are spread evenly over arrays."""
  if len({len(array) for array in arrays}) > 1:
    raise ValueError(f"the inputs' arrays have different lengths: {', '.join(str(len(a)) for a in arrays)}.")
  count = min(len(arrays[0]), num_batches * _BATCH_SIZE)
  chosen = np.arange(count) * len(arrays[0]) // max(count, 1)
  for start in range(0, count, _BATCH_SIZE):
    yield [array[chosen[start : start + _BATCH_SIZE]] for array in arrays]
