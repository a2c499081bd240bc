"""Operations of `keras.ops` in the graph of a model, as `tf_keras` layers or TensorFlow operations."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfkd.keras3 import activations, substitutes

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


class Call:
  """One operation of the graph of a Keras 3 model.

  Attributes:
    op: operation of Keras 3.
    name: its name.
    dtype: dtype of its first output, as a string.
    rank: rank of its first output.
  """

  def __init__(self, node: Any):
    self.op = node.operation
    self.name = self.op.name
    self.dtype = str(node.output_tensors[0].dtype)
    self.rank = len(node.output_tensors[0].shape)

  def cast(self, value: Any, dtype: str | None = None) -> Any:
    """Converts a tensor or array to the dtype of the output, or to `dtype`; Python numbers stay."""
    dtype = dtype or self.dtype
    if isinstance(value, bool | int | float):
      return value
    if _is_tensor(value):
      return value if value.dtype.name == dtype else tf.cast(value, dtype)
    return tf.cast(value, dtype).numpy()


def _is_tensor(value):
  return hasattr(value, "_keras_history")


def is_convertible(op: Any) -> bool:
  """Whether an operation of Keras 3 that is no layer has a counterpart."""
  return type(op).__module__.startswith("keras.src.ops") and type(op).__name__ in _known()


def _known():
  return {*_UNARY, *_BINARY, *_COMPARISONS, *_REDUCTIONS, *_ACTIVATIONS, *_OTHERS}


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
    outputs = _OTHERS[kind](call, *args, **kwargs)
  _rename(outputs, call.name)
  return outputs


def _rename(outputs, name):
  for tensor in tf.nest.flatten(outputs)[:1]:
    layer = getattr(tensor, "_keras_history", None)
    if layer is not None and layer.layer.name.startswith(("tf.", "slice.")):
      layer.layer._name = name


def _has_mask(x):
  return getattr(x, "_keras_mask", None) is not None


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
  function = activations.converted(name)
  x = call.cast(x)
  if _has_mask(x):
    return function(x)
  return keras.layers.Activation(function, name=call.name, dtype=call.dtype)(x)


def _binary(call, kind, x1, x2):
  a, b = call.cast(x1), call.cast(x2)
  tensors = [x for x in (a, b) if _is_tensor(x)]
  if len(tensors) == 2 and kind in _MERGES and not any(map(_has_mask, tensors)) and _is_merge(a, b, call):
    return getattr(keras.layers, _MERGES[kind])(name=call.name, dtype=call.dtype)([a, b])
  scale_and_offset = _rescaling(kind, a, b)
  if scale_and_offset and call.dtype == "float32" and not _has_mask(tensors[0]):
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
  tensors = [x for x in (x1, x2) if _is_tensor(x)]
  if len(tensors) == 2 and x1.dtype != x2.dtype:
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
  channels_last = keras.backend.image_data_format() == "channels_last" and not _has_mask(x)
  if kind in ("Mean", "Max") and rank == 4 and axis and sorted(a % 4 for a in axis) == [1, 2] and channels_last:
    layer = keras.layers.GlobalAveragePooling2D if kind == "Mean" else keras.layers.GlobalMaxPooling2D
    return layer(keepdims=bool(op.keepdims), name=call.name, dtype=call.dtype)(x)
  return _REDUCTIONS[kind](x, axis=axis, keepdims=op.keepdims)


def _relu(call, x):
  if _has_mask(x):
    return tf.nn.relu(x)
  return keras.layers.ReLU(name=call.name, dtype=call.dtype)(x)


def _relu6(call, x):
  if _has_mask(x):
    return tf.nn.relu6(x)
  return keras.layers.ReLU(6.0, name=call.name, dtype=call.dtype)(x)


def _leaky_relu(call, x):
  if _has_mask(x):
    return tf.nn.leaky_relu(x, call.op.negative_slope)
  return keras.layers.LeakyReLU(call.op.negative_slope, name=call.name, dtype=call.dtype)(x)


def _softmax(call, x):
  axis = call.op.axis
  if axis is None or isinstance(axis, list | tuple):
    raise ValueError(f"Operation {call.name!r} (Softmax) has axis={axis}: give one axis.")
  if _has_mask(x):
    return tf.nn.softmax(x, axis)
  return keras.layers.Softmax(axis, name=call.name, dtype=call.dtype)(x)


def _concatenate(call, xs):
  xs, axis = [call.cast(x) for x in xs], call.op.axis
  plain = all(_is_tensor(x) and not _has_mask(x) for x in xs)
  if plain and len(xs) > 1 and axis is not None and axis % call.rank:
    return keras.layers.Concatenate(axis, name=call.name, dtype=call.dtype)(xs)
  return tf.concat(xs, axis)


def _reshape(call, x):
  shape = list(call.op.newshape)
  rest = shape[1:]
  sizes = x.shape.as_list()[1:]
  static = None not in sizes and None not in rest and -1 not in rest
  static = static and tf.TensorShape(rest).num_elements() == tf.TensorShape(sizes).num_elements()
  if shape[:1] == [-1] and static and rest and not _has_mask(x):
    return keras.layers.Reshape(rest, name=call.name, dtype=call.dtype)(x)
  return tf.reshape(x, [-1 if size is None else size for size in shape])


def _transpose(call, x):
  axes = call.op.axes
  axes = list(axes) if axes is not None else list(range(x.shape.rank))[::-1]
  axes = [axis % x.shape.rank for axis in axes]
  if axes[0] == 0 and len(axes) > 1 and not _has_mask(x):
    return keras.layers.Permute(axes[1:], name=call.name, dtype=call.dtype)(x)
  return tf.transpose(x, axes)


def _squeeze(call, x):
  axis = call.op.axis
  return tf.squeeze(x, axis=list(axis) if isinstance(axis, list | tuple) else axis)


def _expand_dims(call, x):
  axis = call.op.axis
  for one in sorted(axis) if isinstance(axis, list | tuple) else [axis]:
    x = tf.expand_dims(x, one)
  return x


def _pad(call, x, constant_values=None):
  modes = {"constant": "CONSTANT", "reflect": "REFLECT", "symmetric": "SYMMETRIC"}
  if call.op.mode not in modes:
    raise ValueError(f"Operation {call.name!r} (Pad) has mode={call.op.mode!r}: expected one of {', '.join(modes)}.")
  width = call.op.pad_width
  if isinstance(width, int):
    width = ((width, width),)
  if isinstance(width[0], int):
    width = (tuple(width),)
  width = width * x.shape.rank if len(width) == 1 else width
  return tf.pad(x, [list(one) for one in width], modes[call.op.mode], constant_values or 0)


def _split(call, x):
  sections, axis = call.op.indices_or_sections, call.op.axis
  if not isinstance(sections, int):
    edges = [0, *(int(i) for i in sections), x.shape[axis]]
    sections = [b - a for a, b in zip(edges[:-1], edges[1:], strict=True)]
  return tf.split(x, sections, axis=axis)


def _einsum(call, *operands):
  return substitutes.Einsum(call.op.subscripts, name=call.name, dtype=call.dtype)([call.cast(x) for x in operands])


def _matmul(call, x1, x2):
  a, b = call.cast(x1), call.cast(x2)
  if len(a.shape) < 2 or len(b.shape) < 2:
    raise ValueError(
      f"Operation {call.name!r} (Matmul) has a vector among its inputs: expected two dimensions or more."
    )
  return tf.matmul(a, b)


def _normalize(call, x):
  op = call.op
  if op.order != 2:
    raise ValueError(f"Operation {call.name!r} (Normalize) has order={op.order}: expected 2.")
  epsilon = keras.backend.epsilon() if op.epsilon is None else op.epsilon
  return x / tf.maximum(tf.sqrt(tf.reduce_sum(tf.square(x), op.axis, keepdims=True)), epsilon)


def _clip(call, x):
  low, high = call.op.x_min, call.op.x_max
  return tf.minimum(tf.maximum(call.cast(x), call.cast(low)), call.cast(high))


def _where(call, condition, x1=None, x2=None):
  return tf.where(condition, call.cast(x1), call.cast(x2))


def _get_item(call, x, key):
  del call
  key = list(key) if isinstance(key, list | tuple) else [key]
  if Ellipsis in key:  # It cannot be saved.
    at = key.index(Ellipsis)
    key[at : at + 1] = [slice(None)] * (x.shape.rank - sum(k is not None for k in key) + 1)
  return x[tuple(key)]


def _take(call, x, indices):
  return (
    tf.gather(x, indices, axis=call.op.axis) if call.op.axis is not None else tf.gather(tf.reshape(x, [-1]), indices)
  )


def _resize(call, images):
  op = call.op
  unusual = [name for name in ("crop_to_aspect_ratio", "pad_to_aspect_ratio") if getattr(op, name)]
  if unusual or op.data_format == "channels_first":
    found = ", ".join(unusual) or "data_format=channels_first"
    raise ValueError(f"Operation {call.name!r} (Resize) has {found}: use keras.layers.Resizing.")
  size = list(op.size)
  return call.cast(tf.image.resize(images, size, method=op.interpolation, antialias=op.antialias))


def _swap(call, x):
  axes = list(range(x.shape.rank))
  a, b = call.op.axis1, call.op.axis2
  axes[a], axes[b] = axes[b], axes[a]
  return tf.transpose(x, axes)


def _moveaxis(call, x):
  source, destination = (
    [a % x.shape.rank for a in ([v] if isinstance(v, int) else v)] for v in (call.op.source, call.op.destination)
  )
  order = [axis for axis in range(x.shape.rank) if axis not in source]
  for to, axis in sorted(zip(destination, source, strict=True)):
    order.insert(to, axis)
  return tf.transpose(x, order)


_OTHERS: dict[str, Callable] = {
  "Argmax": lambda call, x: call.cast(tf.argmax(x, axis=call.op.axis)),
  "Argmin": lambda call, x: call.cast(tf.argmin(x, axis=call.op.axis)),
  "BroadcastTo": lambda call, x: tf.broadcast_to(x, [int(s) for s in call.op.shape]),
  "Cast": lambda call, x: tf.cast(x, call.dtype),
  "Clip": _clip,
  "Concatenate": _concatenate,
  "Cumsum": lambda call, x: tf.cumsum(call.cast(x), axis=call.op.axis),
  "Einsum": _einsum,
  "ExpandDims": _expand_dims,
  "Flip": lambda call, x: tf.reverse(x, [call.op.axis] if isinstance(call.op.axis, int) else list(call.op.axis)),
  "GetItem": _get_item,
  "LeakyRelu": _leaky_relu,
  "LogSoftmax": lambda call, x: tf.nn.log_softmax(x, axis=call.op.axis),
  "Matmul": _matmul,
  "Moveaxis": _moveaxis,
  "Normalize": _normalize,
  "OneHot": lambda call, x: tf.one_hot(x, call.op.num_classes, axis=call.op.axis, dtype=call.dtype),
  "Pad": _pad,
  "Relu": _relu,
  "Relu6": _relu6,
  "Repeat": lambda call, x: tf.repeat(x, call.op.repeats, axis=call.op.axis),
  "Reshape": _reshape,
  "Resize": _resize,
  "Softmax": _softmax,
  "Split": _split,
  "Squeeze": _squeeze,
  "Stack": lambda call, xs: tf.stack([call.cast(x) for x in xs], axis=call.op.axis),
  "Swapaxes": _swap,
  "Take": _take,
  "Tile": lambda call, x: tf.tile(x, list(call.op.repeats)),
  "Transpose": _transpose,
  "Unstack": lambda call, x: tf.unstack(x, num=call.op.num, axis=call.op.axis),
  "Where": _where,
}
