"""One graph of layers from models that contain models."""

from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfkd.ops import graph


def flatten(model: keras.Model) -> keras.Model:
  """Returns a model with the layers of the nested models in its own graph, for whatever reads a graph layer by layer.

  A layer of a nested model is called `nested/layer`, as taps call it. Outputs, weights and trainable flags are equal; a
  nested model that is called with `training=False`, as in transfer learning, keeps running its layers so.

  Args:
    model: functional or built `Sequential` `tf_keras` model; it is not changed, and shares no layer with the result.

  Returns:
    Functional `tf_keras` model, or `model` itself if there is nothing nested in it. Nested models with a `call` of
    their own stay as they are.

  Raises:
    ValueError: the model is not a functional or built `Sequential` one.
  """
  if not graph.has_graph(model):
    raise ValueError(
      f"only functional and built Sequential models can be flattened; got {type(model).__name__} "
      f"'{getattr(model, 'name', model)}': build it with `keras.Model(inputs, outputs)`."
    )
  if not any(isinstance(layer, keras.Model) and graph.has_graph(layer) for layer in model.layers):
    return model
  copies = _Copies()
  flat = graph.rebuild(model, lambda node, values: _call(node, values, copies, (), True, None))
  copies.set_weights()
  return flat


class _Copies:
  """New layers for those of the original; a layer that is used in several places has one copy."""

  def __init__(self):
    self._made: dict[int, tuple[keras.layers.Layer, keras.layers.Layer]] = {}

  def of(self, layer: keras.layers.Layer, path: tuple[str, ...], trainable: bool) -> keras.layers.Layer:
    if id(layer) not in self._made:
      copy = graph.copy_of(layer, name="/".join(path))
      if not trainable:
        copy.trainable = False
      self._made[id(layer)] = (layer, copy)
    return self._made[id(layer)][1]

  def set_weights(self) -> None:
    for layer, copy in self._made.values():
      copy.set_weights(layer.get_weights())


def _call(
  node: Any, values: dict[int, Any], copies: _Copies, prefix: tuple[str, ...], trainable: bool, training: Any
) -> Any:
  """Calls the copy of a node's layer, or those of a nested model's layers; returns the outputs."""
  layer, (args, kwargs) = node.layer, graph.arguments(node, values)
  path = (*prefix, layer.name)
  if isinstance(layer, keras.Model) and graph.has_graph(layer):
    bound = layer._call_spec.full_argspec.args[1:]
    given = {**dict(zip(bound, args, strict=False)), **kwargs}
    training = training if given.get("training") is None else given["training"]
    return _inline(layer, given["inputs"], copies, path, trainable and layer.trainable, training)
  if training is not None and layer._expects_training_arg and kwargs.get("training") is None:
    kwargs = {**kwargs, "training": training}
  return copies.of(layer, path, trainable)(*args, **kwargs)


def _inline(model: Any, inputs: Any, copies: _Copies, path: tuple, trainable: bool, training: Any) -> Any:
  """Calls the layers of a nested model on the outer model's tensors."""
  flat = model._flatten_to_reference_inputs(inputs)
  values = {
    id(reference): model._conform_to_reference_input(tensor, ref_input=reference)
    for reference, tensor in zip(model.inputs, flat, strict=True)
  }
  for node in graph.calls(model):
    graph.record(node, _call(node, values, copies, path, trainable, training), values)
  return tf.nest.map_structure(lambda tensor: values[id(tensor)], model._nested_outputs)
