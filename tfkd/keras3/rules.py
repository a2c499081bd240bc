"""Operations of `keras.ops` whose counterparts depend on their options."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfkd.keras3 import substitutes


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
    if is_tensor(value):
      return value if value.dtype.name == dtype else tf.cast(value, dtype)
    return tf.cast(value, dtype).numpy()


def is_tensor(value: Any) -> bool:
  """Whether a value is a symbolic tensor of `tf_keras`."""
  return hasattr(value, "_keras_history")


def has_mask(x: Any) -> bool:
  """Whether a symbolic tensor has a Keras mask, which operations of Keras 3 drop and layers pass on."""
  return getattr(x, "_keras_mask", None) is not None


def _relu(call, x):
  if has_mask(x):
    return tf.nn.relu(x)
  return keras.layers.ReLU(name=call.name, dtype=call.dtype)(x)


def _relu6(call, x):
  if has_mask(x):
    return tf.nn.relu6(x)
  return keras.layers.ReLU(6.0, name=call.name, dtype=call.dtype)(x)


def _leaky_relu(call, x):
  if has_mask(x):
    return tf.nn.leaky_relu(x, call.op.negative_slope)
  return keras.layers.LeakyReLU(call.op.negative_slope, name=call.name, dtype=call.dtype)(x)


def _softmax(call, x):
  axis = call.op.axis
  if axis is None or isinstance(axis, list | tuple):
    raise ValueError(f"Operation {call.name!r} (Softmax) has axis={axis}: give one axis.")
  if has_mask(x):
    return tf.nn.softmax(x, axis)
  return keras.layers.Softmax(axis, name=call.name, dtype=call.dtype)(x)


def _concatenate(call, xs):
  xs, axis = [call.cast(x) for x in xs], call.op.axis
  plain = all(is_tensor(x) and not has_mask(x) for x in xs)
  if plain and len(xs) > 1 and axis is not None and axis % call.rank:
    return keras.layers.Concatenate(axis, name=call.name, dtype=call.dtype)(xs)
  if axis is None:
    xs, axis = [tf.reshape(x, [-1]) for x in xs], 0
  return tf.concat(xs, axis)


def _reshape(call, x):
  shape = list(call.op.newshape)
  rest = shape[1:]
  sizes = x.shape.as_list()[1:]
  static = None not in sizes and None not in rest and -1 not in rest
  static = static and tf.TensorShape(rest).num_elements() == tf.TensorShape(sizes).num_elements()
  if shape[:1] == [-1] and static and rest and not has_mask(x):
    return keras.layers.Reshape(rest, name=call.name, dtype=call.dtype)(x)
  return tf.reshape(x, [-1 if size is None else size for size in shape])


def _transpose(call, x):
  axes = call.op.axes
  axes = list(axes) if axes is not None else list(range(x.shape.rank))[::-1]
  axes = [axis % x.shape.rank for axis in axes]
  if axes[0] == 0 and len(axes) > 1 and not has_mask(x):
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
  modes: dict[str, Any] = {"constant": "CONSTANT", "reflect": "REFLECT", "symmetric": "SYMMETRIC"}
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


OTHERS: dict[str, Callable] = {
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
