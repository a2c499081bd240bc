"""Walks a model's graph and replaces its layers by those of the rules."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras

from tfkd.ops import graph
from tfkd.ops.activations import activation_name
from tfkd.quantization.lowering import operations, primitives, ranges
from tfkd.quantization.lowering.parts import Parts, is_relu
from tfkd.quantization.lowering.rules import lowered

layers = keras.layers


def lower(model: keras.Model, kept: Collection[str]) -> keras.Model:
  """Returns a model with equal outputs in inference and weights, each of whose layers is rounded as a whole.

  For example, a separable convolution becomes two layers, `<name>_depthwise` and `<name>`; a layer with an activation
  that LiteRT does not fuse becomes `<name>_linear` and `<name>`; x * relu6(x + 3) / 6 becomes one layer. The last layer
  in place of each layer has its name.

  Args:
    model: functional or built `Sequential` `tf_keras` model without nested models; it is not changed.
    kept: names of layers that stay as they are, in float.

  Returns:
    `model` itself if nothing has to be replaced; otherwise a new functional model.
  """
  lowering = _Lowering(model, kept)
  return lowering.run() if lowering.is_needed() else model


class _Lowering:
  """One run of `lower`."""

  def __init__(self, model: keras.Model, kept: Collection[str]):
    self._model = model
    self._kept = set(kept)
    self._patterns = operations.patterns(model)
    found = [layer for layer in model.layers if layer.name not in self._kept and not _is_input_or_operation(layer)]
    read_by = graph.readers(model)
    self._parts = {layer.name: _averaged(layer, read_by) or lowered(layer) for layer in found}
    self._imposed = ranges.imposed_edges(model, self._kept)
    self._layers: dict[str, Any] = {}  # New layers by name; a layer that is called several times has one.
    self._affine: dict[int, tuple[Any, np.ndarray, np.ndarray]] = {}  # (input, scale, offset) by id of the output.

  def is_needed(self) -> bool:
    is_replaced = (
      any(self._parts.values())
      or bool(self._imposed)
      or any(operations.is_operation(layer) and layer.name not in self._kept for layer in self._model.layers)
    )
    return is_replaced or any("training" in node.call_kwargs for node in graph.calls(self._model))

  def run(self) -> keras.Model:
    new = graph.rebuild(self._model, self._call)
    for layer in self._model.layers:
      parts = self._parts.get(layer.name)
      if parts is not None:
        parts.set_weights_of(layer)
      elif layer.name in self._layers and layer.weights:
        self._layers[layer.name].set_weights(layer.get_weights())
    return new

  def _call(self, node: Any, values: dict[int, Any]) -> Any:
    values = self._with_own_ranges(node, values)
    layer, name, (args, kwargs) = node.layer, node.layer.name, graph.arguments(node, values)
    if name in self._kept:
      return self._once(name, lambda: graph.copy_of(layer))(*args, **kwargs)
    if id(node) in self._patterns:
      new, source = self._patterns[id(node)]
      return self._once(name, lambda: new)(values[id(source)])
    if operations.is_operation(layer):
      return self._operation(node, values)
    given = kwargs.pop("training", None)
    if isinstance(layer, layers.BatchNormalization) and given is False:
      config = layer.get_config()
      return self._once(name, lambda: primitives.FrozenStatistics.from_config(config))(*args, **kwargs)
    if given is not None and not layer.weights:
      kwargs["training"] = given  # Dropout that is always or never active.
    parts = self._parts[name]
    if parts is None:
      return self._once(name, lambda: _for_sequences(layer, args) or graph.copy_of(layer))(*args, **kwargs)
    (first, *rest) = parts.layers or [None]
    if isinstance(first, primitives.ConstantAffine) and not rest and first.output_range is None:
      return self._scaled(name, args[0], np.asarray(first.scale), np.asarray(first.offset))
    return parts(*args, **kwargs)

  def _with_own_ranges(self, node: Any, values: dict[int, Any]) -> dict[int, Any]:
    """Multiplies by 1 what a node reads of tensors that others read too, where the range of the node begins."""
    found = {}
    for tensor in self._imposed.get(id(node), ()):
      name = f"{tensor._keras_history.layer.name}_for_{node.layer.name}"
      layer = self._once(name, lambda name=name: primitives.ConstantAffine([1.0], [0.0], name=name))
      found[id(tensor)] = layer(values[id(tensor)])
    return {**values, **found} if found else values

  def _operation(self, node: Any, values: dict[int, Any]) -> Any:
    affine = operations.affine_of(node)
    if affine is not None:
      tensor, scale, offset = affine
      return self._scaled(node.layer.name, values[id(tensor)], scale, offset)
    new, inputs = operations.layer_of(node)
    return self._once(node.layer.name, lambda: new)(tf.nest.map_structure(lambda t: values[id(t)], inputs))

  def _scaled(self, name: str, tensor: Any, scale: np.ndarray, offset: np.ndarray) -> Any:
    """Returns scale * tensor + offset; constants that are applied to one another's results become one."""
    source, first, shift = self._affine.get(id(tensor), (tensor, np.ones(1), np.zeros(1)))
    scale, offset = np.ravel(scale * first), np.ravel(scale * shift + offset)
    outputs = self._once(name, lambda: primitives.ConstantAffine(scale, offset, name=name))(source)
    self._affine[id(outputs)] = source, scale, offset
    return outputs

  def _once(self, name: str, make: Callable[[], Any]) -> Any:
    if name not in self._layers:
      self._layers[name] = make()
    return self._layers[name]


def _is_input_or_operation(layer: Any) -> bool:
  return isinstance(layer, layers.InputLayer) or operations.is_operation(layer)


def _averaged(layer: Any, read_by: Mapping[str, list[list[Any]]]) -> Parts | None:
  """Returns the part in place of average pooling on which a reader imposes a range, or None for other layers."""
  if not isinstance(layer, ranges.AVERAGE_POOLING) or layer.data_format != "channels_last":
    return None
  readers = [r for tensor in read_by[layer.name] for r in ranges.readers_in_file(tensor, read_by)]
  if not any(ranges.imposes_range(reader, read_by) for reader in readers):
    return None
  average = primitives.AverageConvolution(layer.pool_size, layer.strides, layer.padding, name=layer.name)
  return Parts([average])


def _for_sequences(layer: Any, args: tuple) -> Any:
  """Returns a normalization or ReLU that fuses with a convolution of sequences before it, or None."""
  before = getattr(args[0], "_keras_history", None) if args else None
  if before is None or not isinstance(before.layer, primitives.OnSequences):
    return None
  if type(layer) is layers.BatchNormalization:
    return primitives.SequenceNormalization.from_config({**layer.get_config(), "axis": -1})
  if is_relu(layer):
    limit = layer.max_value if isinstance(layer, layers.ReLU) else {"relu6": 6.0}.get(activation_name(layer.activation))
    return primitives.SequenceReLU(limit, name=layer.name)
  return None
