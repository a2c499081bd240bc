"""A layer that calls one TensorFlow operation, and its arguments in a form that can be saved."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras

from tfkd.ops import graph

_TENSOR, _ARRAY, _SLICE, _DTYPE, _ELLIPSIS = "tensor", "array", "slice", "dtype", "ellipsis"


@keras.saving.register_keras_serializable(package="tfkd")
class Operation(keras.layers.Layer):
  """Calls a function of TensorFlow on tensors and constants.

  Keras adds a layer for each function that is called on its symbolic tensors, and saves the constants with the model's
  graph. This layer holds them itself, so that it can be wrapped.

  Args:
    function: name within `tf`, such as "math.multiply".
    arguments: positional and keyword arguments as `encoded` returned them.
  Inputs: a tensor, or a list of tensors. Output: the function's.
  """

  def __init__(self, function: str, arguments: Any, **kwargs: Any):
    super().__init__(**kwargs)
    self.function = function
    self.arguments = arguments
    self._call: Any = functools.reduce(getattr, function.split("."), tf)

  def call(self, inputs: Any) -> Any:
    tensors = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
    args, kwargs = decoded(self.arguments, tensors, self._array)
    return self._call(*args, **kwargs)

  def _array(self, values: Any, dtype: str) -> tf.Tensor:
    """Returns an array of constants as a tensor."""
    return tf.constant(values, dtype)

  def get_config(self) -> dict[str, Any]:
    return {**super().get_config(), "function": self.function, "arguments": self.arguments}


@keras.saving.register_keras_serializable(package="tfkd")
class RoundedOperation(Operation):
  """`Operation` whose arrays of constants are rounded to eight bits in their own range, as they are in a file."""

  def _array(self, values: Any, dtype: str) -> tf.Tensor:
    array = super()._array(values, dtype)
    if not array.dtype.is_floating or not array.shape.rank:
      return array
    low, high = min(float(np.min(values)), 0.0), max(float(np.max(values)), 0.0)
    return tf.quantization.fake_quant_with_min_max_args(array, low, high) if high > low else array


keras.saving.get_custom_objects().update({kind.__name__: kind for kind in (Operation, RoundedOperation)})  # For HDF5.


def encoded(args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[Any, list[Any]]:
  """Splits a call's arguments into a description that can be saved as JSON, and the symbolic tensors.

  Raises:
    TypeError: an argument is something else than symbolic tensors, numbers, strings, arrays, slices and types; a
      variable, for example.
  """
  tensors: list[Any] = []

  def encode(value: Any) -> Any:
    if graph.is_symbolic(value):
      index = next((i for i, tensor in enumerate(tensors) if tensor is value), len(tensors))
      tensors[index:] = [value] if index == len(tensors) else tensors[index:]
      return {_TENSOR: index}
    if isinstance(value, dict) and set(value) == {"start", "stop", "step"}:  # Keras' own form of a slice.
      return {_SLICE: [encode(value[part]) for part in ("start", "stop", "step")]}
    if isinstance(value, slice):
      return {_SLICE: [encode(part) for part in (value.start, value.stop, value.step)]}
    if isinstance(value, dict):
      return {str(key): encode(part) for key, part in value.items()}
    return [encode(part) for part in value] if isinstance(value, (list, tuple)) else _encoded_constant(value)

  return [encode(list(args)), encode(dict(kwargs))], tensors


def _encoded_constant(value: Any) -> Any:
  if value is None or isinstance(value, (bool, int, float, str)):
    return value
  if isinstance(value, (np.ndarray, np.generic)) or isinstance(value, tf.Tensor) and hasattr(value, "numpy"):
    array = np.asarray(value)
    return {_ARRAY: array.tolist(), _DTYPE: array.dtype.name}
  if isinstance(value, tf.DType):
    return {_DTYPE: value.name}
  if isinstance(value, tf.TensorShape):
    return value.as_list()
  if value is Ellipsis:
    return {_ELLIPSIS: True}
  raise TypeError(f"{type(value).__name__} {value!r}")


def decoded(arguments: Any, tensors: Sequence[Any], array: Callable[[Any, str], tf.Tensor]) -> Any:
  """Inverts `encoded` for given tensors, and a function that makes arrays; tuples become lists."""

  def decode(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
      return [decode(part) for part in value]
    if not isinstance(value, dict):
      return value
    if set(value) == {_TENSOR}:
      return tensors[value[_TENSOR]]
    if set(value) == {_ARRAY, _DTYPE}:
      return array(value[_ARRAY], value[_DTYPE])
    if set(value) == {_SLICE}:
      return slice(*(decode(part) for part in value[_SLICE]))
    if set(value) == {_DTYPE}:
      return tf.as_dtype(value[_DTYPE])
    if set(value) == {_ELLIPSIS}:
      return Ellipsis
    return {key: decode(part) for key, part in value.items()}

  return decode(arguments)
