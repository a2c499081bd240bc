"""Operations of `keras.ops` in the graph of a model, as `tf_keras` layers or TensorFlow operations."""

from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfkd.keras3 import activations
from tfkd.keras3.rules import OTHERS, Call, has_mask, is_tensor

_UNARY = {
  "Absolute": tf.abs,
  "Arccos": tf.acos,
  "Arcsin": tf.asin,
  "Arctan": tf.atan,
  "Ceil": tf.math.ceil,
  "Cos": tf.cos,
  "Cosh": tf.cosh,
  "Erf": tf.math.erf,
  "Exp": tf.exp,
  "Expm1": tf.math.expm1,
  "Floor": tf.floor,
  "Copy": tf.identity,
  "Isfinite": tf.math.is_finite,
  "Isinf": tf.math.is_inf,
  "Isnan": tf.math.is_nan,
  "Log": tf.math.log,
  "Log1p": tf.math.log1p,
  "LogicalNot": tf.logical_not,
  "Negative": tf.negative,
  "OnesLike": tf.ones_like,
  "Reciprocal": tf.math.reciprocal,
  "Rsqrt": tf.math.rsqrt,
  "Sign": tf.sign,
  "Sin": tf.sin,
  "Sinh": tf.sinh,
  "Sqrt": tf.sqrt,
  "Square": tf.square,
  "StopGradient": tf.stop_gradient,
  "Tan": tf.tan,
  "ZerosLike": tf.zeros_like,
}
_BINARY = {
  "Add": tf.add,
  "Arctan2": tf.atan2,
  "Divide": tf.divide,
  "FloorDivide": tf.math.floordiv,
  "Maximum": tf.maximum,
  "Minimum": tf.minimum,
  "Mod": tf.math.floormod,
  "Multiply": tf.multiply,
  "Power": tf.pow,
  "Subtract": tf.subtract,
  "TrueDivide": tf.divide,
}
_COMPARISONS = {
  "Equal": tf.equal,
  "Greater": tf.greater,
  "GreaterEqual": tf.greater_equal,
  "Less": tf.less,
  "LessEqual": tf.less_equal,
  "LogicalAnd": tf.logical_and,
  "LogicalOr": tf.logical_or,
  "NotEqual": tf.not_equal,
}
_REDUCTIONS = {
  "All": tf.reduce_all,
  "Any": tf.reduce_any,
  "Logsumexp": tf.reduce_logsumexp,
  "Max": tf.reduce_max,
  "Mean": tf.reduce_mean,
  "Min": tf.reduce_min,
  "Prod": tf.reduce_prod,
  "Std": tf.math.reduce_std,
  "Sum": tf.reduce_sum,
  "Var": tf.math.reduce_variance,
}
_MERGES = {"Add": "Add", "Maximum": "Maximum", "Minimum": "Minimum", "Multiply": "Multiply", "Subtract": "Subtract"}
_ACTIVATIONS = {
  "Celu": "celu",
  "Elu": "elu",
  "Gelu": "gelu",
  "Glu": "glu",
  "HardSigmoid": "hard_sigmoid",
  "HardSilu": "hard_silu",
  "HardTanh": "hard_tanh",
  "LogSigmoid": "log_sigmoid",
  "Selu": "selu",
  "Sigmoid": "sigmoid",
  "Silu": "silu",
  "Softplus": "softplus",
  "Softsign": "softsign",
  "Squareplus": "squareplus",
  "Tanh": "tanh",
  "TanhShrink": "tanh_shrink",
}


def is_convertible(op: Any) -> bool:
  """Whether an operation of Keras 3 that is no layer has a counterpart."""
  return type(op).__module__.startswith("keras.src.ops") and type(op).__name__ in _known()


def _known():
  return {*_UNARY, *_BINARY, *_COMPARISONS, *_REDUCTIONS, *_ACTIVATIONS, *OTHERS}


def convert(node: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
  """Computes an operation of Keras 3 on tensors of a `tf_keras` graph.

  Args:
    node: node of the operation, see `is_convertible`.
    args: its arguments, with the tensors of the new graph.
    kwargs: its keyword arguments.

  Returns:
    Tensor or tensors of the new graph. The layer that computes the last one has the name of the operation.
  """
  call, kind = Call(node), type(node.operation).__name__
  if kind in _ACTIVATIONS:
    outputs = _activation(call, *args, **kwargs)
  elif kind in _UNARY:
    x = args[0] if args else kwargs["x"]
    outputs = _UNARY[kind](call.cast(x) if call.dtype.startswith(("float", "bfloat")) else x)
  elif kind in _BINARY:
    outputs = _binary(call, kind, *args, **kwargs)
  elif kind in _COMPARISONS:
    outputs = _compare(kind, *args, **kwargs)
  elif kind in _REDUCTIONS:
    outputs = _reduce(call, kind, *args, **kwargs)
  else:
    outputs = OTHERS[kind](call, *args, **kwargs)
  _rename(outputs, call.name)
  return outputs


def _rename(outputs, name):
  for tensor in tf.nest.flatten(outputs)[:1]:
    layer = getattr(tensor, "_keras_history", None)
    if layer is not None and layer.layer.name.startswith(("tf.", "slice.")):
      layer.layer._name = name


def _activation(call, x):
  kind = type(call.op).__name__
  name = _ACTIVATIONS[kind]
  if kind == "Gelu" and call.op.approximate:
    return tf.nn.gelu(x, approximate=True)
  if kind == "Elu" and call.op.alpha != 1.0:
    return keras.layers.ELU(call.op.alpha, name=call.name)(x)
  if kind == "Celu" and call.op.alpha != 1.0:
    alpha = call.op.alpha
    return tf.maximum(x, 0.0) + alpha * tf.math.expm1(tf.minimum(x, 0.0) / alpha)
  if kind == "Glu" and call.op.axis != -1:
    first, second = tf.split(x, 2, axis=call.op.axis)
    return first * tf.sigmoid(second)
  function: Any = activations.converted(name)
  x = call.cast(x)
  if has_mask(x):
    return function(x)
  return keras.layers.Activation(function, name=call.name, dtype=call.dtype)(x)


def _binary(call, kind, x1, x2):
  a, b = call.cast(x1), call.cast(x2)
  tensors = [x for x in (a, b) if is_tensor(x)]
  if len(tensors) == 2 and kind in _MERGES and not any(map(has_mask, tensors)) and _is_merge(a, b, call):
    return getattr(keras.layers, _MERGES[kind])(name=call.name, dtype=call.dtype)([a, b])
  scale_and_offset = _rescaling(kind, a, b)
  if scale_and_offset and call.dtype == "float32" and not has_mask(tensors[0]):
    return keras.layers.Rescaling(*scale_and_offset, name=call.name, dtype=call.dtype)(tensors[0])
  return _BINARY[kind](a, b)


def _is_merge(a, b, call):
  return call.dtype.startswith("float") and a.shape.rank == b.shape.rank > 1 and a.shape[0] == b.shape[0]


def _rescaling(kind, a, b):
  """Scale and offset of an operation on a tensor and a number; None for others."""
  if isinstance(b, int | float) and not isinstance(b, bool):
    return {"Add": (1.0, b), "Subtract": (1.0, -b), "Multiply": (b, 0.0)}.get(kind)
  if isinstance(a, int | float) and not isinstance(a, bool):
    return {"Add": (1.0, a), "Subtract": (-1.0, a), "Multiply": (a, 0.0)}.get(kind)
  return None


def _compare(kind, x1, x2):
  tensors = [x for x in (x1, x2) if is_tensor(x)]
  if kind.startswith("Logical"):  # Numbers are true unless they are 0.
    x1, x2 = (tf.cast(x, tf.bool) if is_tensor(x) and x.dtype != tf.bool else x for x in (x1, x2))
  elif len(tensors) == 2 and x1.dtype != x2.dtype:
    wide = x1.dtype if x1.dtype.is_floating else x2.dtype
    x1, x2 = tf.cast(x1, wide), tf.cast(x2, wide)
  return _COMPARISONS[kind](x1, x2)


def _reduce(call, kind, x):
  op = call.op
  axis = tuple(op.axis) if isinstance(op.axis, list) else op.axis
  x = x if kind in ("All", "Any") else call.cast(x)
  if getattr(op, "initial", None) is not None:
    raise ValueError(f"Operation {op.name!r} ({kind}) has initial={op.initial!r}, which TensorFlow lacks.")
  rank = x.shape.rank
  channels_last = keras.backend.image_data_format() == "channels_last" and not has_mask(x)
  if kind in ("Mean", "Max") and rank == 4 and axis and sorted(a % 4 for a in axis) == [1, 2] and channels_last:
    layer = keras.layers.GlobalAveragePooling2D if kind == "Mean" else keras.layers.GlobalMaxPooling2D
    return layer(keepdims=bool(op.keepdims), name=call.name, dtype=call.dtype)(x)
  return _REDUCTIONS[kind](x, axis=axis, keepdims=op.keepdims)
