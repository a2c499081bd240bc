"""Taps: the outputs of named layers, read in the same forward pass as the model's own."""

import difflib

import tensorflow as tf
import tf_keras as keras

_QUANTIZED = "quant_"  # tfmot's prefix of a quantized layer.


def tappable(model):
  """Lists what can be tapped.

  Args:
    model: built functional or `Sequential` model of `tf_keras`, quantized or not, or of Keras 3.

  Returns:
    dict from layer name to output shape, in the order of the forward pass. Layers of a nested model are called
    `nested/layer`, and of a Keras 3 model not listed; quantized layers have the float layer's name.

  Raises:
    ValueError: the model has no graph of layers.
  """
  return {_float_name(path): shape for path, shape in _outputs(model)}


class Reader(keras.layers.Layer):
  """Runs a model once, and returns what named layers gave beside its outputs.

  It belongs outside of what Keras tracks, as a bound method: as an attribute it would bring the model into checkpoints
  once more.

  Args:
    model: built functional or `Sequential` `tf_keras` model.
    names: layer names as `tappable` lists them. Of a nested model's layer the last part is enough where it is unique.
      A layer that is called several times gives its last output.
  Inputs: the model's. Output: pair of the model's outputs and a dict from name to tensor.

  Raises:
    ValueError: the model has no graph of layers, or no such layer; the nearest names are given.
  """

  def __init__(self, model, names):
    super().__init__(name=f"{model.name}_reader", autocast=False)
    self._model = model
    outputs = dict(_outputs(model))
    self._paths = {name: _resolve(name, outputs, model.name) for name in names}
    self.shapes = {name: outputs[path] for name, path in self._paths.items()}

  def call(self, inputs, training=None):
    found = {}
    outputs = _run(self._model, inputs, set(self._paths.values()), found)
    return outputs, {name: found[path] for name, path in self._paths.items()}


class Keras3Reader:
  """`Reader` of a functional or `Sequential` Keras 3 model, which is not trained through it: see there."""

  def __init__(self, model, names):
    import keras as keras3

    tensors = dict(_keras3_outputs(model))
    paths = {name: _resolve(name, tensors, model.name) for name in names}
    self.shapes = {name: tf.TensorShape(tensors[path].shape) for name, path in paths.items()}
    inputs = model.inputs[0] if len(model.inputs) == 1 else model.inputs
    outputs = model.outputs[0] if len(model.outputs) == 1 else model.outputs
    self._model = keras3.Model(inputs, (outputs, {name: tensors[path] for name, path in paths.items()}))

  def __call__(self, inputs, training=None):
    return self._model(inputs, training=training)


def is_keras3(model):
  """Tells a Keras 3 model from one of `tf_keras`, without an import of Keras 3."""
  return any(base.__module__.startswith("keras.src") for base in type(model).__mro__)


def _keras3_outputs(model):
  """Yields (name, symbolic tensor) of every layer that gives one."""
  if not getattr(model, "inputs", None):
    raise ValueError(
      f"{model.name} has no graph of layers to tap: build it as a functional or Sequential Keras 3 model."
    )
  for layer in model.layers:
    output = getattr(layer, "output", None)  # A layer that is called several times has none.
    if output is not None and not tf.nest.is_nested(output):
      yield layer.name, output


def _run(model, inputs, wanted, found, prefix=""):
  """Keras' own walk through a functional graph, into nested models too, which keeps the wanted outputs."""
  inputs = model._flatten_to_reference_inputs(inputs)
  values = {
    id(reference): model._conform_to_reference_input(value, ref_input=reference)
    for reference, value in zip(model.inputs, inputs, strict=True)
  }
  for node in _nodes(model):
    args, kwargs = tf.nest.map_structure(lambda t: values.get(id(t), t), (node.call_args, node.call_kwargs))
    path = prefix + node.layer.name
    inside = path + "/"
    if any(name.startswith(inside) for name in wanted):
      outputs = _run(node.layer, args[0], wanted, found, inside)
    else:
      outputs = node.layer(*args, **kwargs)
    if path in wanted:
      found[path] = outputs
    for reference, value in zip(tf.nest.flatten(node.outputs), tf.nest.flatten(outputs), strict=True):
      values[id(reference)] = value
  outputs = [values[id(reference)] for reference in model.outputs]
  return tf.nest.pack_sequence_as(model._nested_outputs, outputs)


def _nodes(model):
  """The calls of layers that make up a model, in an order in which they can be computed."""
  return (
    node
    for depth in sorted(model._nodes_by_depth, reverse=True)
    for node in model._nodes_by_depth[depth]
    if not node.is_input
  )


def _outputs(model, prefix=""):
  """Yields (path, shape) of every layer that gives one tensor."""
  if is_keras3(model):
    yield from ((name, tf.TensorShape(tensor.shape)) for name, tensor in _keras3_outputs(model))
    return
  if not getattr(model, "_is_graph_network", False):
    raise ValueError(
      f"{getattr(model, 'name', model)} has no graph of layers to tap: build it as a functional or Sequential tf_keras "
      "model, with an Input."
    )
  for node in _nodes(model):
    if getattr(node.layer, "_is_graph_network", False):
      yield from _outputs(node.layer, f"{prefix}{node.layer.name}/")
    if not tf.nest.is_nested(node.outputs):
      yield prefix + node.layer.name, node.outputs.shape


def _resolve(name, paths, model_name):
  """The path of the layer that a user means."""
  by_name = {_float_name(path): path for path in paths}
  if name in paths or name in by_name:
    return by_name.get(name, name)
  inner = [path for float_name, path in by_name.items() if float_name.endswith("/" + name)]
  if len(inner) == 1:
    return inner[0]
  if inner:
    raise ValueError(f"{model_name} has several layers '{name}': {', '.join(map(_float_name, inner))}. Name one whole.")
  near = difflib.get_close_matches(name, by_name)
  hint = f"did you mean {' or '.join(repr(n) for n in near)}? " if near else ""
  raise ValueError(f"{model_name} has no layer '{name}'; {hint}Layers that can be tapped: {', '.join(by_name)}.")


def _float_name(path):
  *nested, name = path.split("/")
  return "/".join([*nested, name.removeprefix(_QUANTIZED)])
