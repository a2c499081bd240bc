"""TensorFlow operations in the graph of a `tf_keras` model, as operations of `keras.ops`."""

import inspect
from collections.abc import Callable
from typing import Any

import tensorflow as tf

# Symbols of TensorFlow by the name in `keras.ops`; the arguments are one tensor.
_UNARY = {
  "abs": "math.abs abs",
  "arccos": "math.acos",
  "arcsin": "math.asin",
  "arctan": "math.atan",
  "ceil": "math.ceil",
  "cos": "math.cos",
  "cosh": "math.cosh",
  "erf": "math.erf",
  "exp": "math.exp",
  "expm1": "math.expm1",
  "floor": "math.floor",
  "copy": "identity",
  "isfinite": "math.is_finite",
  "isinf": "math.is_inf",
  "isnan": "math.is_nan",
  "log": "math.log",
  "log1p": "math.log1p",
  "logical_not": "math.logical_not",
  "negative": "math.negative",
  "ones_like": "ones_like",
  "reciprocal": "math.reciprocal",
  "relu": "nn.relu",
  "relu6": "nn.relu6",
  "rsqrt": "math.rsqrt",
  "selu": "nn.selu",
  "sigmoid": "math.sigmoid",
  "sign": "math.sign",
  "silu": "nn.silu",
  "sin": "math.sin",
  "sinh": "math.sinh",
  "softplus": "math.softplus",
  "softsign": "nn.softsign",
  "sqrt": "math.sqrt",
  "square": "math.square",
  "stop_gradient": "stop_gradient",
  "tan": "math.tan",
  "tanh": "math.tanh",
  "zeros_like": "zeros_like",
}
_BINARY = {
  "add": "math.add __operators__.add",
  "arctan2": "math.atan2",
  "divide": "math.divide math.truediv",
  "equal": "math.equal",
  "floor_divide": "math.floordiv floor_div",
  "greater": "math.greater",
  "greater_equal": "math.greater_equal",
  "less": "math.less",
  "less_equal": "math.less_equal",
  "logical_and": "math.logical_and",
  "logical_or": "math.logical_or",
  "maximum": "math.maximum",
  "minimum": "math.minimum",
  "mod": "math.floormod",
  "multiply": "math.multiply",
  "not_equal": "math.not_equal",
  "power": "math.pow",
  "subtract": "math.subtract",
}
_REDUCTIONS = {
  "all": "math.reduce_all",
  "any": "math.reduce_any",
  "logsumexp": "math.reduce_logsumexp",
  "max": "math.reduce_max",
  "mean": "math.reduce_mean",
  "min": "math.reduce_min",
  "prod": "math.reduce_prod",
  "std": "math.reduce_std",
  "sum": "math.reduce_sum",
  "var": "math.reduce_variance",
}


_LAMBDAS = {"ClassMethod", "InstanceMethod", "InstanceProperty", "SlicingOpLambda", "TFOpLambda"}
# Layers of this library.
_LAYERS = {
  "tfkd.keras3.substitutes.Einsum": lambda ops, layer, x: ops.einsum(layer.equation, *x),
  "tfkd.models._vit.FirstToken": lambda ops, layer, x: x[:, 0],
}


def _by_symbol(table):
  return {symbol: name for name, symbols in table.items() for symbol in symbols.split()}


_UNARY_OF, _BINARY_OF, _REDUCTION_OF = map(_by_symbol, (_UNARY, _BINARY, _REDUCTIONS))


def is_convertible(layer: Any) -> bool:
  """Whether a `TFOpLambda` layer has a counterpart in `keras.ops`."""
  return _symbol(layer) in {**_UNARY_OF, **_BINARY_OF, **_REDUCTION_OF, **_OTHERS, **_LAYERS}


def is_operation(layer: Any) -> bool:
  """Whether a `tf_keras` layer stands for an operation, which is none in Keras 3."""
  return f"{type(layer).__module__}.{type(layer).__name__}" in _LAYERS or type(layer).__name__ in _LAMBDAS


def _symbol(layer):
  path = f"{type(layer).__module__}.{type(layer).__name__}"
  return path if path in _LAYERS else str(getattr(layer, "symbol", None)).removeprefix("compat.v1.")


def convert(ops: Any, layer: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
  """Computes a TensorFlow operation on tensors of a Keras 3 graph.

  Args:
    ops: `keras.ops`.
    layer: `TFOpLambda` layer, see `is_convertible`.
    args: arguments of the call, with the tensors of the new graph.
    kwargs: its keyword arguments.
  """
  symbol = _symbol(layer)
  if symbol in _LAYERS:
    return _LAYERS[symbol](ops, layer, *args)
  kwargs = {name: value for name, value in kwargs.items() if name != "name"}
  if symbol in _UNARY_OF:
    return getattr(ops, _UNARY_OF[symbol])(*args, *kwargs.values())
  if symbol in _BINARY_OF:
    return getattr(ops, _BINARY_OF[symbol])(*args, *kwargs.values())
  if symbol in _REDUCTION_OF:
    return _reduce(getattr(ops, _REDUCTION_OF[symbol]), *args, **kwargs)
  # By name, since the order of the arguments is another in TensorFlow 1.
  given = inspect.signature(layer.function).bind(*args, **kwargs).arguments
  return _OTHERS[symbol](ops, **{name: value for name, value in given.items() if name != "name"})


def _reduce(function, input_tensor, axis=None, keepdims=False):
  axis = axis if axis is None or isinstance(axis, int) else tuple(axis)
  return function(input_tensor, axis=axis, keepdims=keepdims)


def _dtype(value):
  return tf.as_dtype(value).name


def _matmul(ops, a, b, transpose_a=False, transpose_b=False, **others):
  del others

  def turned(x):
    return ops.swapaxes(x, -1, -2)

  return ops.matmul(turned(a) if transpose_a else a, turned(b) if transpose_b else b)


def _pad(ops, tensor, paddings, mode="CONSTANT", constant_values=0):
  paddings = tuple(tuple(int(n) for n in pair) for pair in paddings)
  return ops.pad(tensor, paddings, mode.lower(), constant_values if mode.upper() == "CONSTANT" else None)


def _split(ops, value, num_or_size_splits, axis=0, num=None):
  del num
  if isinstance(num_or_size_splits, int):
    return ops.split(value, num_or_size_splits, axis=axis)
  edges = [sum(num_or_size_splits[: i + 1]) for i in range(len(num_or_size_splits) - 1)]
  return ops.split(value, edges, axis=axis)


def _resize(ops, images, size, method="bilinear", preserve_aspect_ratio=False, antialias=False):
  if preserve_aspect_ratio:
    raise ValueError("tf.image.resize with preserve_aspect_ratio has no counterpart: leave the aspect ratio free.")
  return ops.image.resize(images, tuple(int(n) for n in size), interpolation=method, antialias=antialias)


def _gather(ops, params, indices, validate_indices=None, axis=None, batch_dims=0):
  del validate_indices
  if batch_dims:
    raise ValueError("tf.gather with batch_dims has no counterpart: use keras.ops.take_along_axis.")
  return ops.take(params, indices, axis=axis or 0)


def _get_item(ops, tensor, slice_spec, var=None):
  del ops, var
  keys = slice_spec if isinstance(slice_spec, list | tuple) else (slice_spec,)
  return tensor[tuple(_key(key) for key in keys)]


def _key(key):
  if isinstance(key, dict):
    return slice(key["start"], key["stop"], key["step"])
  return key


def _leaky_relu(ops, features, alpha=0.2):
  return ops.leaky_relu(features, alpha)


def _einsum(ops, equation, *inputs, **others):
  del others
  return ops.einsum(equation, *inputs)


def _one_hot(ops, indices, depth, on_value=None, off_value=None, axis=-1, dtype=None):
  if on_value is not None or off_value is not None:
    raise ValueError("tf.one_hot with on_value or off_value has no counterpart: multiply its result, and add to it.")
  return ops.one_hot(indices, depth, axis=-1 if axis is None else axis, dtype=_dtype(dtype or "float32"))


def _where(ops, condition, x=None, y=None):
  return ops.where(condition, x, y)


_OTHERS: dict[str, Callable] = {
  "__operators__.getitem": _get_item,
  "argmax": lambda ops, input, axis=None, **_: ops.argmax(input, 0 if axis is None else axis),
  "argmin": lambda ops, input, axis=None, **_: ops.argmin(input, 0 if axis is None else axis),
  "broadcast_to": lambda ops, input, shape: ops.broadcast_to(input, tuple(shape)),
  "cast": lambda ops, x, dtype: ops.cast(x, _dtype(dtype)),
  "clip_by_value": lambda ops, t, clip_value_min, clip_value_max: ops.clip(t, clip_value_min, clip_value_max),
  "concat": lambda ops, values, axis: ops.concatenate(values, axis=axis),
  "einsum": _einsum,
  "expand_dims": lambda ops, input, axis: ops.expand_dims(input, axis),
  "gather": _gather,
  "image.resize": _resize,
  "linalg.matmul": _matmul,
  "math.argmax": lambda ops, input, axis=None, **_: ops.argmax(input, 0 if axis is None else axis),
  "math.argmin": lambda ops, input, axis=None, **_: ops.argmin(input, 0 if axis is None else axis),
  "math.cumsum": lambda ops, x, axis=0: ops.cumsum(x, axis=axis),
  "nn.gelu": lambda ops, features, approximate=False: ops.gelu(features, approximate=approximate),
  "nn.leaky_relu": _leaky_relu,
  "nn.log_softmax": lambda ops, logits, axis=-1: ops.log_softmax(logits, axis=-1 if axis is None else axis),
  "nn.softmax": lambda ops, logits, axis=-1: ops.softmax(logits, axis=-1 if axis is None else axis),
  "one_hot": _one_hot,
  "pad": _pad,
  "repeat": lambda ops, input, repeats, axis=None: ops.repeat(input, repeats, axis=axis),
  "reshape": lambda ops, tensor, shape: ops.reshape(tensor, tuple(int(n) for n in shape)),
  "reverse": lambda ops, tensor, axis: ops.flip(tensor, axis[0] if len(axis) == 1 else tuple(axis)),
  "split": _split,
  "squeeze": lambda ops, input, axis=None, **_: ops.squeeze(
    input, axis=tuple(axis) if isinstance(axis, list) else axis
  ),
  "stack": lambda ops, values, axis=0: ops.stack(values, axis=axis),
  "tile": lambda ops, input, multiples: ops.tile(input, tuple(int(n) for n in multiples)),
  "transpose": lambda ops, a, perm=None, **_: ops.transpose(a, perm),
  "unstack": lambda ops, value, num=None, axis=0: ops.unstack(value, num, axis),
  "where": _where,
}
