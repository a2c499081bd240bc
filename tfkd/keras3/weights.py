"""Values of the weights and trainable flags, from a layer of one Keras to its counterpart of the other."""

import collections
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tf_keras as keras

# Weights with other names, as Keras 3 calls them.
_NAMES = {
  "depthwise_kernel": "kernel",  # Of DepthwiseConv. Separable convolutions have it in both.
}


def copy(source: Any, target: Any) -> None:
  """Sets the weights of a layer, of either Keras, from its counterpart.

  Args:
    source: built layer.
    target: built layer. Weights are matched by the last part of their names, and in order among the same names.

  Raises:
    ValueError: the layers have other weights.
  """
  ordered = [one for one in (source, target) if isinstance(one, keras.layers.Layer)]  # By flags, in tf_keras alone.
  flags = [(layer, layer.trainable) for one in ordered for layer in one._flatten_layers()]
  for layer, _ in flags:
    layer.trainable = True  # `weights` lists the trainable ones first.
  given, wanted = _by_name(source), _by_name(target)
  for layer, flag in flags:
    layer.trainable = flag
  if "variable" in {**given, **wanted}:  # Made without a name.
    copy_in_order(source, target)
    return
  shapes = [{name: [tuple(w.shape) for w in weights] for name, weights in one.items()} for one in (given, wanted)]
  if shapes[0] != shapes[1]:
    raise ValueError(
      f"Layer {source.name!r} ({type(source).__name__}) has weights {shapes[0]}, and its counterpart "
      f"{type(target).__name__} has {shapes[1]}."
    )
  for name, weights in given.items():
    for value, weight in zip(weights, wanted[name], strict=True):
      weight.assign(np.asarray(value))


def copy_in_order(source: Any, target: Any) -> None:
  """Sets the weights of a layer in their order, see `copy`."""
  given, wanted = state(source), state(target)
  if [tuple(w.shape) for w in given] != [tuple(w.shape) for w in wanted]:
    raise ValueError(
      f"Layer {source.name!r} ({type(source).__name__}) has weights of shapes {[tuple(w.shape) for w in given]}, and "
      f"its counterpart {type(target).__name__} has {[tuple(w.shape) for w in wanted]}: return a layer with "
      "the same weights in the same order, or a built one with its own values."
    )
  for value, weight in zip(given, wanted, strict=True):
    weight.assign(np.asarray(value))


def state(layer: Any) -> list[Any]:
  """The weights of a layer without the state of random numbers."""
  variables = [w for w in layer.weights if hasattr(w, "assign")]  # Not the tables of lookups.
  return [w for w in variables if "seed_generator" not in getattr(w, "path", w.name)]


def _by_name(layer):
  found = collections.defaultdict(list)
  names = [re.sub(r":\d+$", "", getattr(w, "path", w.name)).split("/")[-1] for w in state(layer)]
  separable = "pointwise_kernel" in names
  for name, weight in zip(names, state(layer), strict=True):
    name = re.sub(r"_\d+$", "", name)
    found[name if separable else _NAMES.get(name, name)].append(weight)
  return dict(found)


def copy_flags(source: Any, target: Any) -> None:
  """Sets the trainable flag of a layer and, by name, of the layers in it."""
  flags = {layer.name: layer.trainable for layer in source._flatten_layers()}
  target.trainable = source.trainable
  for layer in target._flatten_layers():
    if layer is not target and layer.name in flags:
      layer.trainable = flags[layer.name]


def copy_model_flags(
  source: Any, trainable: bool, target: Any, counterparts: Mapping[int, Any], graph_of: Callable[[Any], Any]
) -> None:
  """Sets the trainable flags of a model, of its layers and of the models nested in it.

  Args:
    source: model.
    trainable: its own flag.
    target: its counterpart.
    counterparts: those of layers and models by `id`.
    graph_of: function from a layer to the model that it stands for; None for others.
  """
  target.trainable = trainable
  for layer in source.layers:
    made, inner = counterparts.get(id(layer)), graph_of(layer)
    if made is not None and inner is not None:
      copy_model_flags(inner, layer.trainable, made, counterparts, graph_of)
    elif made is not None:
      copy_flags(layer, made)
