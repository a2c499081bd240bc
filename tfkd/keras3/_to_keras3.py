"""Conversion of `tf_keras` models to Keras 3."""

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfkd.keras3 import checks, symbols
from tfkd.keras3.config import NotConvertible
from tfkd.keras3.conversion import Conversion
from tfkd.keras3.library import library
from tfkd.keras3.reverse_table import Reverse
from tfkd.ops import graph


def to_keras3(model: keras.Model, layers: Mapping[type, Callable[[keras.layers.Layer], Any]] | None = None) -> Any:
  """Rebuilds a float `tf_keras` model in Keras 3, with the same outputs, layer names, weights and trainable flags.

  It is the way back of `from_keras3`, with the same guarantees: nested models, shared layers and the structure of
  inputs and outputs stay. TensorFlow operations in the graph become those of `keras.ops`. The compiled loss, metrics
  and optimizer are not converted. A random layer draws other numbers.

  Args:
    model: built functional or `Sequential` model of `tf_keras`, not quantized.
    layers: conversion by class of the user's own layers; it returns a new Keras 3 layer, see `from_keras3`.

  Returns:
    Keras 3 model on TensorFlow.

  Raises:
    TypeError: model is not a `tf_keras` model.
    RuntimeError: Keras 3 runs on another backend.
    ValueError: the model is subclassed with a `call` of its own, unbuilt or quantized, or has layers without a
      counterpart; the message names all of them.
  """
  checks.check_is_tf_keras(model)
  conversion = _ToKeras3(library(), layers or {})
  checks.check_graph(model)
  conversion.check(model, _layers_of(model, conversion.own))
  return conversion.run(model)


class _ToKeras3(Conversion):
  """One conversion to Keras 3."""

  def __init__(self, keras3: Any, layers: Mapping[type, Callable]):
    super().__init__(keras3, "Keras 3", layers)
    self.keras3 = keras3
    self._table = Reverse(keras3, self.layer)

  def graph_of(self, layer: Any) -> Any:
    return layer if isinstance(layer, keras.Model) and type(layer) not in self.own else None

  def _layer(self, source):
    if symbols.is_operation(source):
      if not symbols.is_convertible(source):
        symbol = getattr(source, "symbol", None) or type(source).__name__
        raise NotConvertible(f"is the operation {symbol}, which keras.ops lacks: use a layer or another operation")
      return None
    return self.model(source) if isinstance(source, keras.Model) else self._table.layer(source)

  def _model(self, source):
    return self._sequential(source) if isinstance(source, keras.Sequential) else self._functional(source)

  def _input(self, tensor):
    return self.keras3.Input(
      batch_shape=tuple(tensor.shape), dtype=tensor.dtype.name, name=tensor._keras_history.layer.name
    )

  def _sequential(self, source):
    start = self._input(source.inputs[0])
    made = self.keras3.Sequential(name=source.name)
    made.add(start._keras_history.operation)
    for layer in source.layers:
      made.add(self.layer(layer))
    return made

  def _functional(self, source):
    values = {id(tensor): self._input(tensor) for tensor in source.inputs}
    for node in graph.calls(source):
      args, kwargs = graph.arguments(node, values)
      made = self.layer(node.layer)
      if made is None:
        outputs = symbols.convert(self.keras3.ops, node.layer, args, kwargs)
        self.keras3.tree.flatten(outputs)[0]._keras_history.operation.name = node.layer.name
      else:
        args, kwargs = _with_state(node.layer, args, _without_training(node.layer, kwargs))
        outputs = made(*args, **kwargs)
      flat = self.keras3.tree.flatten(outputs)
      for tensor, value in zip(tf.nest.flatten(node.outputs), flat, strict=True):
        values[id(tensor)] = value

    def mapped(structure):
      return tf.nest.map_structure(lambda t: values[id(t)], structure)

    return self.keras3.Model(mapped(source._nested_inputs), mapped(source._nested_outputs), name=source.name)


def _without_training(layer, kwargs):
  if isinstance(kwargs.get("training"), bool):
    raise ValueError(
      f"Layer {layer.name!r} is called with training={kwargs['training']}, which Keras 3 replaces in fit: freeze the "
      "layer with trainable=False, and call it without that argument."
    )
  return {name: value for name, value in kwargs.items() if name != "training"}


def _with_state(layer, args, kwargs):
  """Takes the initial state of a recurrent layer out of the list of its inputs, into which `tf_keras` puts it."""
  is_recurrent = isinstance(layer, keras.layers.RNN | keras.layers.Bidirectional)
  if not is_recurrent or not isinstance(args[0], list | tuple):
    return args, kwargs
  return (args[0][0], *args[1:]), {**kwargs, "initial_state": list(args[0][1:])}


def _layers_of(model, own):
  """Layers of a model and of the models nested in it, without input layers and nested models."""
  for layer in model.layers:
    if isinstance(layer, keras.Model) and type(layer) not in own:
      checks.check_graph(layer)
      yield from _layers_of(layer, own)
    elif not isinstance(layer, keras.layers.InputLayer):
      yield layer
