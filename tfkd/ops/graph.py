"""Graphs of functional models: the calls of their layers, who reads whose output, and rebuilding with other layers."""

import collections

import tensorflow as tf
import tf_keras as keras


def calls(model):
  """The calls of layers that make up a functional model, in an order in which they can be computed.

  Args:
    model: functional or built `Sequential` `tf_keras` model.

  Returns:
    list of Keras nodes, without those of input layers.
  """
  depths = sorted(model._nodes_by_depth, reverse=True)
  return [node for depth in depths for node in model._nodes_by_depth[depth] if not node.is_input]


def readers(model):
  """Which layers read the outputs of each layer.

  Args:
    model: as for `calls`.

  Returns:
    dict from layer name to a list with an entry for each tensor that the layer gives: the list of the layers that read
    it. A tensor that the model returns is read by None, too.
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


def producers(model):
  """The layers whose outputs each layer reads: dict from layer name to list of layers, one for each tensor it reads."""
  found = {layer.name: [] for layer in model.layers}
  for node in calls(model):
    found[node.layer.name] += [tensor._keras_history.layer for tensor in node.keras_inputs]
  return found


def rebuild(model, replace):
  """A model of the same graph in which chains of layers take the place of single ones.

  Args:
    model: as for `calls`; it is not changed.
    replace: function from a layer to the new layers that are called in its place, one on the output of the other. They
      must not be part of a model yet, and have weights only once they are built.

  Returns:
    Functional `tf_keras` model, with new weights.
  """
  values = {}
  for tensor in model.inputs:
    layer = tensor._keras_history.layer
    values[id(tensor)] = keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=layer.name)
  made = {layer.name: replace(layer) for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)}
  for node in calls(model):
    args, kwargs = tf.nest.map_structure(lambda t: values.get(id(t), t), (node.call_args, node.call_kwargs))
    first, *rest = made[node.layer.name]
    outputs = first(*args, **kwargs)
    for layer in rest:
      outputs = layer(outputs)
    for tensor, value in zip(tf.nest.flatten(node.outputs), tf.nest.flatten(outputs), strict=True):
      values[id(tensor)] = value

  def mapped(structure):
    return tf.nest.map_structure(lambda t: values[id(t)], structure)

  return keras.Model(mapped(model._nested_inputs), mapped(model._nested_outputs), name=model.name)


def copy_of(layer, **config):
  """A new layer of the same class and configuration, but for the entries given."""
  return type(layer).from_config({**layer.get_config(), **config})
