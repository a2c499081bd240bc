"""Taps: outputs of named layers, read in the same forward pass as the model's outputs."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import tensorflow as tf
import tf_keras as keras

from tfkd.keras3 import is_keras3
from tfkd.ops import graph
from tfkd.ops.spelling import did_you_mean

_PREFIXES = ("quant_", "prune_low_magnitude_")  # tfmot's prefixes of a quantized layer and of one that is pruned.


def tappable(model: Any) -> dict[str, tf.TensorShape]:
  """Lists the layer outputs that can be tapped.

  Args:
    model: built functional or `Sequential` model of `tf_keras`, quantized or not, or of Keras 3.

  Returns:
    dict from name to output shape, in the order of the forward pass. Layers of a nested `tf_keras` model are called
    `nested/layer`, those of a nested Keras 3 model are not listed; quantized layers have the float layer's name. A
    layer with several outputs has one entry for each: `layer:0`, `layer:1` and so on, in the order of
    `tf.nest.flatten`.

  Raises:
    ValueError: the model has no graph of layers.
  """
  return {name: tap.shape for name, tap in _named(_all_taps(model))}


class Reader:
  """Calls a model once, and returns the outputs of named layers in addition to its own.

  Every layer is called as by the model itself, with the same arguments, masks and `training`. A plain object,
  because Keras would track a layer and write the model into checkpoints a second time.

  Args:
    model: built functional or `Sequential` `tf_keras` model.
    names: names as `tappable` lists them. For a layer of a nested model the last part is enough if it is unique. For a
      layer that is called several times the output of its last call is returned, in the order of the model's code.
  Inputs: the model's. Output: pair of the model's outputs and a dict from name to tensor.

  Raises:
    ValueError: the model has no graph of layers, or no such layer; the message has the nearest names.
  """

  def __init__(self, model: keras.Model, names: Sequence[str]):
    found = _resolved(model, names)
    self.shapes: dict[str, tf.TensorShape] = {name: tap.shape for name, tap in found.items()}
    self._places = {name: (tap.path, tap.index or 0) for name, tap in found.items()}
    self._paths = sorted({tap.path for tap in found.values()})
    self._walk = _Walk(model, self._paths)

  def __call__(self, inputs: Any, training: bool | None = None) -> tuple[Any, dict[str, tf.Tensor]]:
    outputs, values = self._walk(inputs, training=training)
    by_path = dict(zip(self._paths, values, strict=True))
    return outputs, {name: tf.nest.flatten(by_path[path])[index] for name, (path, index) in self._places.items()}


class _Walk(keras.layers.Layer):
  """Calls the layers of a functional model as Keras does, also inside nested models, and returns some of their outputs.

  A layer, so that Keras passes `training` and masks to it as it does to the model that it replaces.

  Args:
    model: functional model.
    paths: layers to read, each a tuple of layer names through nested models.
  Inputs: the model's. Output: pair of the model's outputs and a list of the layers' outputs, in the order of `paths`.
  """

  _compute_output_and_mask_jointly = True  # As in Keras' functional models: outputs have their layers' masks.

  def __init__(self, model: keras.Model, paths: Sequence[tuple[str, ...]]):
    super().__init__(name=model.name, autocast=False)
    self.supports_masking = True
    self.input_spec = model.input_spec
    self._model = model
    inner = {}
    for path in paths:
      if len(path) > 1:
        inner.setdefault(path[0], []).append(path[1:])
    self._inner = {name: _Walk(model.get_layer(name), paths) for name, paths in inner.items()}
    self._keys = [(path[0], None if len(path) == 1 else inner[path[0]].index(path[1:])) for path in paths]

  def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> tuple[Any, list]:
    model = self._model
    values = dict(zip(map(id, model.inputs), _as_referenced(model, inputs, mask), strict=True))
    last, found = _last_calls(model), {}
    for node in graph.calls(model):
      args, kwargs = graph.arguments(node, values)
      name = node.layer.name
      if name in self._inner:
        outputs, read = self._inner[name](*args, **kwargs)
      else:
        outputs, read = node.layer(*args, **kwargs), ()
      if last[name] is node:
        found[name] = (outputs, read)
      graph.record(node, outputs, values)
    outputs = [values[id(reference)] for reference in model.outputs]
    return tf.nest.pack_sequence_as(model._nested_outputs, outputs), [
      found[name][0] if place is None else found[name][1][place] for name, place in self._keys
    ]


class Keras3Reader:
  """`Reader` of a functional or `Sequential` Keras 3 model, for teachers: gradients are not needed."""

  def __init__(self, model: Any, names: Sequence[str]):
    import keras as keras3

    found = _resolved(model, names)
    self.shapes = {name: tap.shape for name, tap in found.items()}
    functional = _keras3_graph(model)
    self._names = list(found)
    self._model = keras3.Model(functional.input, (functional.output, [tap.tensor for tap in found.values()]))

  def __call__(self, inputs: Any, training: bool | None = None) -> tuple[Any, dict[str, tf.Tensor]]:
    outputs, values = self._model(inputs, training=training)
    return outputs, dict(zip(self._names, values, strict=True))


class _Tap(NamedTuple):
  """One output of a layer."""

  path: tuple[str, ...]
  """Names of the nested models around the layer, and of the layer."""
  index: int | None
  """Index among the layer's outputs; None if it has one."""
  tensor: Any
  """Symbolic tensor."""
  alias: str | None = None
  """Name in place of the path's."""

  @property
  def shape(self) -> tf.TensorShape:
    return tf.TensorShape(self.tensor.shape)

  @property
  def name(self) -> str:
    return self.alias or "/".join(self.path) + ("" if self.index is None else f":{self.index}")

  @property
  def float_name(self) -> str:
    """The name before the layer was quantized or pruned."""
    *models, layer = self.path
    return self._replace(path=(*models, _float(layer))).name


def _float(name: str) -> str:
  """Returns the name of a layer without tfmot's prefixes."""
  for prefix in _PREFIXES:
    name = name.removeprefix(prefix)
  return name


def _as_referenced(model: keras.Model, inputs: Any, mask: Any) -> list:
  """Converts inputs to one tensor for each of a functional model's `inputs`, as Keras' own `call` does."""
  inputs = model._flatten_to_reference_inputs(inputs)
  masks = [None] * len(inputs) if mask is None else model._flatten_to_reference_inputs(mask)
  for tensor, its_mask in zip(inputs, masks, strict=True):
    if tensor is not None:
      tensor._keras_mask = its_mask
  return [
    model._conform_to_reference_input(tensor, ref_input=reference)
    for reference, tensor in zip(model.inputs, inputs, strict=True)
  ]


def _taps(model: Any, prefix: tuple[str, ...] = ()) -> Iterator[_Tap]:
  """Yields every output of a layer."""
  _check_graph(model)
  if is_keras3(model):
    nodes, layer_of, outputs_of = graph.calls(_keras3_graph(model)), "operation", "output_tensors"
  else:
    nodes, layer_of, outputs_of = graph.calls(model), "layer", "outputs"
  last = _last_calls(model)
  for node in nodes:
    layer = getattr(node, layer_of)
    if last[layer.name] is not node:
      continue
    path = (*prefix, layer.name)
    if not is_keras3(layer) and graph.has_graph(layer):
      yield from _taps(layer, path)
    tensors = tf.nest.flatten(getattr(node, outputs_of))
    for i, tensor in enumerate(tensors):
      if hasattr(tensor, "shape"):
        yield _Tap(path, i if len(tensors) > 1 else None, tensor)


def _all_taps(model: Any) -> list[_Tap]:
  """Taps of a model's layers, and of nested models that were flattened: `base` of layers `base/conv`, `base/relu`."""
  taps = list(_taps(model))
  return taps if is_keras3(model) else [*taps, *_flattened(model, {tap.float_name for tap in taps})]


def _flattened(model: keras.Model, taken: set[str]) -> Iterator[_Tap]:
  """Taps of the outputs of flattened nested models: the one tensor of a group of layers that others read."""
  read_outside: dict[str, dict[str, Any]] = {}  # By prefix: tensors by the layers that return them.
  readers = [(tensor, node.layer.name) for node in graph.calls(model) for tensor in node.keras_inputs]
  for tensor, reader in [*readers, *((tensor, "") for tensor in model.outputs)]:
    producer = _float(tensor._keras_history.layer.name)
    for end in (i for i, letter in enumerate(producer) if letter == "/"):
      if not _float(reader).startswith(producer[: end + 1]):
        read_outside.setdefault(producer[:end], {})[tensor._keras_history.layer.name] = tensor
  for prefix, tensors in read_outside.items():
    if len(tensors) == 1 and prefix not in taken:
      ((layer, tensor),) = tensors.items()
      yield _Tap((layer,), None, tensor, prefix)


def _last_calls(model: Any) -> dict[str, Any]:
  """Maps layer names to the node of the layer's last call in the model."""
  last = {}
  for node in graph.calls(_keras3_graph(model) if is_keras3(model) else model):
    layer = node.operation if is_keras3(model) else node.layer
    calls = layer._inbound_nodes
    if layer.name not in last or calls.index(node) > calls.index(last[layer.name]):
      last[layer.name] = node
  return last


def _keras3_graph(model: Any) -> Any:
  """The functional model inside a Keras 3 `Sequential`, or the model itself."""
  return getattr(model, "_functional", None) or model


def _check_graph(model: Any) -> None:
  if not graph.has_graph(model):
    raise ValueError(
      f"{getattr(model, 'name', model)} has no graph of layers to tap: build it as a functional or Sequential model, "
      "with an Input and without a `call` of its own."
    )


def _named(taps: Iterable[_Tap]) -> list[tuple[str, _Tap]]:
  """Pairs of name and tap: a quantized layer has the float layer's name, unless another layer has that name."""
  taps = list(taps)
  names = {tap.name for tap in taps}
  return [(tap.name if tap.float_name in names else tap.float_name, tap) for tap in taps]


def _resolved(model: Any, names: Sequence[str]) -> dict[str, _Tap]:
  """Maps the user's names to taps."""
  named = _named(_all_taps(model))
  return {name: _resolve(name, named, model.name) for name in names}


def _resolve(name: str, named: list[tuple[str, _Tap]], model_name: str) -> _Tap:
  """Finds the tap of a user's name."""
  for matches in (
    lambda given, tap: given == name,
    lambda given, tap: tap.name == name,
    lambda given, tap: given.endswith(f"/{name}"),
  ):
    candidates = [(given, tap) for given, tap in named if matches(given, tap)]
    if len(candidates) == 1:
      return candidates[0][1]
    if candidates:
      given = [given for given, _ in candidates]
      advice = "Use the full name of one." if len(set(given)) == len(given) else "Rename one of them."
      raise ValueError(f"{model_name} has several layers '{name}': {', '.join(given)}. {advice}")
  outputs = [given for given, tap in named if tap.index is not None and f"/{given}".startswith(f"/{name}:")]
  outputs = outputs or [given for given, tap in named if tap.index is not None and f"/{name}:" in given]
  if outputs:
    raise ValueError(f"layer '{name}' of {model_name} has several outputs: name one of {', '.join(outputs)}.")
  layer, _, index = name.rpartition(":")
  if layer and index.isdecimal():
    same = [given for given, _ in named if f"/{given}".rpartition(":")[0].endswith(f"/{layer}")]
    if same:
      raise ValueError(
        f"layer '{layer}' of {model_name} has {len(same)} outputs and no number {index}: name one of {', '.join(same)}."
      )
    same = [given for given, _ in named if f"/{given}".endswith(f"/{layer}")]
    if same:
      raise ValueError(f"layer '{layer}' of {model_name} has one output: name it '{same[0]}', without a number.")
  every = [given for given, _ in named]
  hint = did_you_mean(name, every)
  raise ValueError(f"{model_name} has no layer '{name}'; {hint}Layers that can be tapped: {', '.join(every)}.")
