"""Conversion of Keras 3 models to `tf_keras`."""

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf
import tf_keras as keras
from absl import logging

from tfkd.keras3 import checks, expansion, operations, table
from tfkd.keras3.config import NotConvertible
from tfkd.keras3.conversion import Conversion
from tfkd.keras3.library import is_keras3, library
from tfkd.ops import graph


def from_keras3(model: Any, layers: Mapping[type, Callable[[Any], keras.layers.Layer]] | None = None) -> keras.Model:
  """Rebuilds a Keras 3 model in `tf_keras`, with the same outputs, layer names, weights and trainable flags.

  The new model is independent of the old one. A nested model stays nested, a shared layer is shared, and the
  structure of inputs and outputs stays the same. Operations of `keras.ops` become layers where there is one of that
  meaning, and TensorFlow operations elsewhere. A `training` argument of a layer's call is left out, since `fit`,
  `evaluate` and `predict` of Keras 3 replace it. The optimizer, the loss and the metrics of a compiled model are not
  converted: compile the new model with those of `tf_keras`. A subclass of `keras.Model` that is built as a functional
  model becomes a functional model.

  Args:
    model: built functional or `Sequential` model of Keras 3 on TensorFlow, in float precision.
    layers: conversion by class of the user's own layers, or in place of a built-in one; subclasses are not included. It
      takes the Keras 3 layer and returns a new `tf_keras` layer. If that is unbuilt, it is given the weights of the
      Keras 3 layer in their order; a built one keeps its own.

  Returns:
    `tf_keras` model.

  Raises:
    TypeError: model is not of Keras 3.
    RuntimeError: Keras 3 runs on another backend.
    ValueError: the model is subclassed with a `call` of its own, unbuilt or quantized, or has layers without a
      counterpart; the message names all of them.
  """
  checks.check_is_model(model)
  keras3 = library()
  conversion = _FromKeras3(keras3, layers or {})
  checks.check_model(model, keras3)
  conversion.check(model, checks.operations_of(model, keras3, conversion.own))
  return conversion.run(model)


def as_tf_keras(model: Any, role: str) -> Any:
  """Converts a Keras 3 model, and logs that; anything else is returned as it is.

  Args:
    model: model of either Keras, or anything else.
    role: what the model is to the caller, such as "student", for the log.

  Raises:
    RuntimeError, ValueError: see `from_keras3`.
  """
  if not is_keras3(model) or not hasattr(model, "layers"):
    return model
  converted = from_keras3(model)
  logging.info("The %s %r is of Keras 3: it was converted to tf_keras by tfkd.from_keras3.", role, converted.name)
  return converted


class _FromKeras3(Conversion):
  """One conversion to `tf_keras`."""

  def __init__(self, keras3: Any, layers: Mapping[type, Callable]):
    super().__init__(keras, "tf_keras", layers)
    self.keras3 = keras3
    self._expanded: dict[int, Any] = {}  # Models of blocks; kept, since `made` has the ids of what exists.

  def graph_of(self, layer: Any) -> Any:
    if type(layer) in self.own:
      return None
    return layer if isinstance(layer, self.keras3.Model) else self._expanded.get(id(layer))

  def _layer(self, source):
    if not isinstance(source, self.keras3.layers.Layer):
      if not operations.is_convertible(source):
        raise NotConvertible("is an operation without a counterpart")
      return None
    if isinstance(source, self.keras3.Model):
      return self.model(source)
    if expansion.is_block(source):
      self._expanded[id(source)] = expansion.expanded(source, self.keras3)
      return self.model(self._expanded[id(source)])
    convert = table.converter(source, self.keras3.layers)
    if convert is None:
      raise NotConvertible(checks.advice(source, self.keras3))
    return convert(self.layer)

  def _model(self, source):
    return self._functional(source) if getattr(source, "_functional", None) is None else self._sequential(source)

  def _sequential(self, source):
    inputs = source.layers and source._functional.inputs[0]
    made = keras.Sequential(name=source.name)
    made.add(self._input(inputs))
    for layer in source.layers:
      made.add(self.layer(layer))
    return made

  def _input(self, tensor):
    operation = tensor._keras_history.operation
    shape = tuple(tensor.shape)
    return keras.layers.InputLayer(
      input_shape=shape[1:], batch_size=shape[0], dtype=str(tensor.dtype), name=operation.name, sparse=tensor.sparse
    )

  def _functional(self, source):
    values = {id(tensor): self._input(tensor).output for tensor in source.inputs}
    walk = _Walk(self, values)
    for node in walk.needed(source):
      walk.compute(node)
    inputs, outputs = (
      self.keras3.tree.map_structure(lambda t: values[id(t)], structure)
      for structure in (source._inputs_struct, source._outputs_struct)
    )
    return keras.Model(inputs, outputs, name=source.name)


class _Walk:
  """Computes the nodes of one graph on tensors of the new one.

  Masks that Keras 3 adds to the arguments by itself are left to `tf_keras`, which finds them in the same way.
  """

  def __init__(self, conversion: _FromKeras3, values: dict[int, Any]):
    self.conversion, self.values = conversion, values
    self.tensor_class = conversion.keras3.KerasTensor
    self.tree = conversion.keras3.tree

  def needed(self, model: Any) -> list[Any]:
    """Nodes that the outputs need, in the order of the graph."""
    stack, seen = list(model.outputs), set()
    producers = {id(t): node for node in graph.calls(model) for t in node.output_tensors}
    while stack:
      node = producers.get(id(stack.pop()))
      if node is not None and id(node) not in seen:
        seen.add(id(node))
        stack += [t for t in self.tree.flatten(self.arguments(node)) if isinstance(t, self.tensor_class)]
    return [node for node in graph.calls(model) if id(node) in seen]

  def arguments(self, node: Any) -> tuple[tuple, dict[str, Any]]:
    """Arguments of a call without `training` and without the masks that Keras 3 has found by itself."""
    args, kwargs = node.arguments.args, dict(node.arguments.kwargs)
    if isinstance(node.operation, self.conversion.keras3.layers.Layer):
      kwargs.pop("training", None)
      masks = [id(mask) for mask in map(_mask_of, node.input_tensors) if mask is not None]
      for name in [name for name in kwargs if name == "mask" or name.endswith("_mask")]:
        given = [t for t in self.tree.flatten(kwargs[name]) if t is not None]
        if name != "attention_mask" and all(id(t) in masks for t in given):
          del kwargs[name]
    return args, kwargs

  def compute(self, node: Any) -> None:
    """Calls the counterpart of a node's operation."""
    args, kwargs = self.tree.map_structure(self._value, self.arguments(node))
    layer = self.conversion.layer(node.operation)
    if layer is None:
      outputs = operations.convert(node, args, kwargs)
    else:
      missing = {} if "mask" in kwargs else self._lost_mask(node, args)
      outputs = layer(*self._without_mask(node, layer, args), **kwargs, **missing)
    flat = tf.nest.flatten(outputs)
    for tensor, value in zip(node.output_tensors, flat, strict=True):
      if _mask_of(value) is not None and (_mask_of(tensor) is None or _mixes_masks(node)):
        value = tf.identity(value)  # It has no mask, so that the readers are given that of Keras 3.
      self.values[id(tensor)] = value

  def _lost_mask(self, node, args):
    """The argument `mask` of a call if Keras 3 has found it, and `tf_keras` has not."""
    given = node.arguments.kwargs.get("mask")
    if not isinstance(given, self.tensor_class) or not args or tf.nest.is_nested(args[0]):
      return {}
    return {} if _mask_of(args[0]) is not None else {"mask": self._value(given)}

  def _without_mask(self, node, layer, args):
    """The arguments, without the mask of the input if Keras 3 does not pass it on, as to an LSTM with a given state."""
    takes_mask = layer._call_spec.expects_mask_arg
    if not takes_mask or not args or tf.nest.is_nested(args[0]) or node.arguments.kwargs.get("mask") is not None:
      return args
    return (args[0] if _mask_of(args[0]) is None else tf.identity(args[0]), *args[1:])

  def _value(self, tensor):
    if not isinstance(tensor, self.tensor_class):
      return tensor
    if id(tensor) not in self.values:  # A mask.
      history = tensor._keras_history
      self.compute(history.operation._inbound_nodes[history.node_index])
    return self.values[id(tensor)]


def _mixes_masks(node):
  """Whether the inputs of a call have several masks, whose union `Add` takes in Keras 3, and the intersection here."""
  return len({id(_mask_of(tensor)) for tensor in node.input_tensors}) > 1


def _mask_of(tensor):
  return getattr(tensor, "_keras_mask", None)
