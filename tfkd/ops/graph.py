"""Graphs of functional models: layer calls, their readers and producers, and rebuilding with other layers."""

import collections
from collections.abc import Callable
from typing import Any

import tensorflow as tf
import tf_keras as keras

# Modules in which Keras defines the `call` that runs a graph of layers; any other `call` may compute anything.
_RUN_THE_GRAPH = ("tf_keras.src.engine.functional", "tf_keras.src.engine.sequential", "keras.src.models")


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


def rebuild(
  model: keras.Model, call: Callable[[Any, dict[int, Any]], Any], read: Callable[[Any], Any] = lambda tensor: tensor
) -> keras.Model:
  """Builds a functional model of the same inputs and outputs, with other calls of layers.

  Args:
    model: `tf_keras` model, see `calls`; it is not changed.
    call: function of a node and of the new tensors by the ids of the original ones (see `arguments`), which returns the
      outputs of this call in the new model. It must not call layers of `model`.
    read: function of an input of the new model that returns what its layers read in its place.

  Returns:
    Functional `tf_keras` model.
  """
  inputs = {
    id(tensor): keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=tensor._keras_history.layer.name)
    for tensor in model.inputs
  }
  values = {key: read(tensor) for key, tensor in inputs.items()}
  for node in calls(model):
    record(node, call(node, values), values)

  def mapped(structure, tensors):
    return tf.nest.map_structure(lambda t: tensors[id(t)], structure)

  return keras.Model(mapped(model._nested_inputs, inputs), mapped(model._nested_outputs, values), name=model.name)


def copy_of(layer: keras.layers.Layer, **config: Any) -> keras.layers.Layer:
  """A new layer of the same class and configuration, except for the given entries."""
  return type(layer).from_config({**layer.get_config(), **config})


def has_graph(model: Any) -> bool:
  """Whether a call of a model only calls the layers of its graph, so that they can be read and replaced.

  Args:
    model: a `tf_keras` or Keras 3 model, or anything else.
  """
  is_graph = hasattr(getattr(model, "_functional", None) or model, "_nodes_by_depth")  # Keras 3's Sequential.
  return is_graph and type(model).call.__module__.startswith(_RUN_THE_GRAPH)


def is_symbolic(value: Any) -> bool:
  """Whether a value is a tensor of a functional model's graph."""
  return hasattr(value, "_keras_history")
