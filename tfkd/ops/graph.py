"""Graphs of functional models: layer calls, their readers and producers, and rebuilding with other layers."""

import collections
from collections.abc import Callable
from typing import Any

import tensorflow as tf
import tf_keras as keras


def calls(model: Any) -> list[Any]:
  """The calls of layers that make up a functional model, in an order in which they can be computed.

  Args:
    model: functional or built `Sequential` `tf_keras` model, or functional Keras 3 model.

  Returns:
    Keras nodes, without those of input layers.
  """
  depths = sorted(model._nodes_by_depth, reverse=True)
  return [node for depth in depths for node in model._nodes_by_depth[depth] if not node.is_input]


def arguments(node: Any, values: dict[int, Any]) -> tuple[tuple, dict[str, Any]]:
  """Arguments of a layer call, in which the tensors of the graph are replaced by their values.

  Args:
    node: one of `calls` of a `tf_keras` model.
    values: value by id of the symbolic tensor; a tensor without a value stays.
  """
  return tf.nest.map_structure(lambda t: values.get(id(t), t), (node.call_args, node.call_kwargs))


def record(node: Any, outputs: Any, values: dict[int, Any]) -> None:
  """Enters the outputs of a layer call among the values of `arguments`."""
  for tensor, value in zip(tf.nest.flatten(node.outputs), tf.nest.flatten(outputs), strict=True):
    values[id(tensor)] = value


def readers(model: keras.Model) -> dict[str, list[list[Any]]]:
  """Lists the layers that read the outputs of each layer.

  Args:
    model: `tf_keras` model, see `calls`.

  Returns:
    dict from layer name to a list with an entry for each tensor that the layer returns: the list of the layers that
    read it. A tensor that the model returns is also read by None.
  """
  by_tensor = collections.defaultdict(list)
  for node in calls(model):
    for tensor in node.keras_inputs:
      by_tensor[id(tensor)].append(node.layer)
  for tensor in model.outputs:
    by_tensor[id(tensor)].append(None)
  found = collections.defaultdict(list)  # A Sequential model does not list its input layer.
  for node in calls(model):
    found[node.layer.name] += [by_tensor[id(tensor)] for tensor in tf.nest.flatten(node.outputs)]
  for tensor in model.inputs:
    found[tensor._keras_history.layer.name].append(by_tensor[id(tensor)])
  return found


def producers(model: keras.Model) -> dict[str, list[Any]]:
  """Lists the layers whose outputs each layer reads, one for each tensor, by layer name."""
  found = {layer.name: [] for layer in model.layers}
  for node in calls(model):
    found[node.layer.name] += [tensor._keras_history.layer for tensor in node.keras_inputs]
  return found


def rebuild(model: keras.Model, replace: Callable[[keras.layers.Layer], list[keras.layers.Layer]]) -> keras.Model:
  """Builds a model of the same graph in which chains of layers replace single layers.

  Args:
    model: `tf_keras` model, see `calls`; it is not changed.
    replace: function from a layer to the chain of new layers that are called in its place. They must not be part of a
      model yet, and have no weights before they are built.

  Returns:
    Functional `tf_keras` model, with new weights.
  """
  values = {}
  for tensor in model.inputs:
    layer = tensor._keras_history.layer
    values[id(tensor)] = keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=layer.name)
  made = {layer.name: replace(layer) for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)}
  for node in calls(model):
    args, kwargs = arguments(node, values)
    first, *rest = made[node.layer.name]
    outputs = first(*args, **kwargs)
    for layer in rest:
      outputs = layer(outputs)
    record(node, outputs, values)

  def mapped(structure):
    return tf.nest.map_structure(lambda t: values[id(t)], structure)

  return keras.Model(mapped(model._nested_inputs), mapped(model._nested_outputs), name=model.name)


def copy_of(layer: keras.layers.Layer, **config: Any) -> keras.layers.Layer:
  """A new layer of the same class and configuration, except for the given entries."""
  return type(layer).from_config({**layer.get_config(), **config})
