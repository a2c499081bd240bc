"""Bare TensorFlow operations of a model's graph, as layers."""

from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras

from tfkd.keras3.activations import hard_silu
from tfkd.ops import graph
from tfkd.quantization.lowering.operation import Operation, encoded
from tfkd.quantization.lowering.parts import activation_layer
from tfkd.quantization.lowering.primitives import ConstantAffine

layers = keras.layers
_ACTIVATIONS = {
  "nn.relu": keras.activations.relu,
  "nn.relu6": tf.nn.relu6,
  "nn.sigmoid": keras.activations.sigmoid,
  "math.sigmoid": keras.activations.sigmoid,
  "nn.silu": keras.activations.swish,
  "nn.swish": keras.activations.swish,
  "math.tanh": keras.activations.tanh,
  "nn.tanh": keras.activations.tanh,
}
_ADD, _SUBTRACT = ("__operators__.add", "math.add"), ("math.subtract", "__operators__.sub")
_MULTIPLY, _DIVIDE = ("math.multiply", "__operators__.mul"), ("math.truediv", "math.divide", "__operators__.truediv")
_MERGES = {
  **dict.fromkeys(_ADD, layers.Add),
  **dict.fromkeys(_MULTIPLY, layers.Multiply),
  **dict.fromkeys(_SUBTRACT, layers.Subtract),
  "math.maximum": layers.Maximum,
  "math.minimum": layers.Minimum,
}
PRESERVING = {
  "reshape", "transpose", "squeeze", "expand_dims", "identity", "tile", "gather", "stop_gradient", "pad", "unstack",
  "split", "reverse", "roll", "broadcast_to", "slice", "strided_slice", "__operators__.getitem", "reduce_max",
  "math.reduce_max", "nn.max_pool2d", "nn.max_pool", "nn.space_to_depth", "nn.depth_to_space",
}  # fmt: skip
"""Operations that keep the range of their input."""


def is_operation(layer: Any) -> bool:
  """Returns whether Keras made a layer for a function that was called on its symbolic tensors."""
  return type(layer).__name__ in ("TFOpLambda", "SlicingOpLambda")


def symbol(layer: Any) -> str:
  """Returns the name of the function within `tf`, such as "math.multiply"."""
  return layer.symbol if getattr(layer, "symbol", None) else layer.get_config()["function"]


def problem(node: Any) -> str | None:
  """Returns why a call of an operation cannot be held by a layer, or None."""
  try:
    encoded(node.call_args, node.call_kwargs)
  except TypeError as error:
    return f"an operation on {error}; hold it in a layer of your own, or keep it in float with float_layers"
  return None


def affine_of(node: Any) -> tuple[Any, np.ndarray, np.ndarray] | None:
  """Returns (tensor, scale, offset) of a sum, difference, product or quotient with a constant, or None.

  Args:
    node: call of an operation. The constant is a number, or has one entry for each of the last axis.
  """
  function, operands = symbol(node.layer), _operands(node)
  if operands is None or len(operands) != 2:
    return None
  tensors = [graph.is_symbolic(operand) for operand in operands]
  if all(tensors) and operands[0] is operands[1] and function in _ADD and operands[0].dtype.is_floating:
    return operands[0], np.full(1, 2.0), np.zeros(1)
  tensor, other = operands if tensors[0] else operands[::-1]
  constant = None if sum(tensors) != 1 else _constant_of(tensor, other)
  if constant is None:
    return None
  one, zero = np.ones(1), np.zeros(1)
  is_first = tensors[0]
  found = {
    **dict.fromkeys(_ADD, (one, constant)),
    **dict.fromkeys(_SUBTRACT, (one, -constant) if is_first else (-one, constant)),
    **dict.fromkeys(_MULTIPLY, (constant, zero)),
  }
  if is_first and np.all(constant != 0):
    found.update(dict.fromkeys(_DIVIDE, (1 / constant, zero)))
  return (tensor, *found[function]) if function in found else None


def _constant_of(tensor: Any, value: Any) -> np.ndarray | None:
  """Returns a number, or an array with one number for each entry of a tensor's last axis; None for anything else."""
  try:
    constant = np.asarray(value, np.float64)
  except (TypeError, ValueError, NotImplementedError):  # A variable, say.
    return None
  is_of_last_axis = constant.ndim and constant.size == constant.shape[-1] == tensor.shape[-1]
  fits = (constant.size == 1 or is_of_last_axis) and constant.ndim <= len(tensor.shape)
  return constant if fits and tensor.dtype.is_floating else None


def _operands(node: Any) -> list[Any] | None:
  args, kwargs = list(node.call_args), dict(node.call_kwargs)
  kwargs.pop("name", None)
  args += [kwargs.pop(key) for key in ("x", "y", "a", "b") if key in kwargs]
  return None if kwargs else args


def layer_of(node: Any) -> tuple[keras.layers.Layer, Any]:
  """Returns a layer that computes an operation, and its inputs as tensors of the original graph."""
  function, name, operands = symbol(node.layer), node.layer.name, _operands(node)
  only_tensors = bool(operands) and all(map(graph.is_symbolic, operands or ()))
  if function in _ACTIVATIONS and operands is not None and len(operands) == 1:
    return activation_layer(_ACTIVATIONS[function], name), operands[0]
  if function in ("nn.gelu", "nn.softmax") and operands is not None and len(operands) == 1:
    return layers.Activation(function.removeprefix("nn."), name=name), operands[0]
  if function in _MERGES and only_tensors and len({tuple(tensor.shape) for tensor in operands or ()}) == 1:
    return _MERGES[function](name=name), operands
  if function == "concat" and "axis" in node.call_kwargs and isinstance(node.call_kwargs["axis"], int):
    return layers.Concatenate(axis=node.call_kwargs["axis"], name=name), list(tf.nest.flatten(node.call_args))
  arguments, tensors = encoded(node.call_args, node.call_kwargs)
  return Operation(function, arguments, name=name), tensors[0] if len(tensors) == 1 else tensors


def patterns(model: keras.Model) -> dict[int, tuple[keras.layers.Layer, Any]]:
  """Finds functions that are written in operations, of which LiteRT has one.

  Args:
    model: functional model.

  Returns:
    dict from the id of the last call of a pattern to its layer, and the layer's input in the graph of the model.
  """
  gates: dict[int, Any] = {}  # x by the id of the tensor relu6(x + 3) / 6.
  made_by = {id(tensor): node for node in graph.calls(model) for tensor in tf.nest.flatten(node.outputs)}
  found: dict[int, tuple[keras.layers.Layer, Any]] = {}
  for node in graph.calls(model):
    name, (output, *others) = node.layer.name, tf.nest.flatten(node.outputs)
    source = None if others else _hard_sigmoid_input(node, made_by)
    if source is not None:
      gates[id(output)] = source
      found[id(node)] = ConstantAffine([1 / 6], [0.5], (0.0, 1.0), name=name), source
    product = _product(node)
    for gate, tensor in (product, product[::-1]) if product else ():
      if gates.get(id(gate)) is tensor:
        found[id(node)] = layers.Activation(hard_silu, name=name), tensor
  return found


def _product(node: Any) -> tuple[Any, Any] | None:
  """Returns the two factors of a product of tensors, or None."""
  if isinstance(node.layer, layers.Multiply):
    tensors = tf.nest.flatten(node.keras_inputs)
  elif is_operation(node.layer) and symbol(node.layer) in _MULTIPLY:
    tensors = [operand for operand in _operands(node) or () if graph.is_symbolic(operand)]
  else:
    return None
  return (tensors[0], tensors[1]) if len(tensors) == 2 else None


def _hard_sigmoid_input(node: Any, made_by: dict[int, Any]) -> Any:
  """Returns x if a call returns relu6(x + 3) / 6, or None."""
  scaled = affine_of(node) if is_operation(node.layer) else None
  if scaled is None or scaled[1].size != 1 or not np.isclose(scaled[1], 1 / 6) or np.any(scaled[2]):
    return None
  clipped = made_by.get(id(scaled[0]))
  if clipped is None or not _is_relu6(clipped.layer):
    return None
  (argument,) = tf.nest.flatten(clipped.keras_inputs)
  shifted = made_by.get(id(argument))
  if shifted is None or not is_operation(shifted.layer):
    return None
  sum_ = affine_of(shifted)
  is_sum = sum_ is not None and np.all(sum_[1] == 1) and sum_[2].size == 1 and np.isclose(sum_[2], 3)
  return sum_[0] if is_sum and sum_ is not None else None


def _is_relu6(layer: Any) -> bool:
  if isinstance(layer, layers.ReLU):
    return layer.max_value == 6 and not layer.negative_slope and not layer.threshold
  return is_operation(layer) and symbol(layer) == "nn.relu6"
