"""What the conversions between `tf_keras` and Keras 3 have in common."""

import abc
import collections
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tfkd.keras3 import checks, weights
from tfkd.keras3.config import NotConvertible


class Conversion(abc.ABC):
  """One conversion of a model. Layers and models that are used twice are converted once.

  Args:
    library: package of the new model, `tf_keras` or `keras`.
    name: its name in messages.
    own: conversion by class of the user's own layers.
  """

  def __init__(self, library: Any, name: str, own: Mapping[type, Callable[[Any], Any]]):
    self._library, self._name = library, name
    self.own = dict(own)
    self.made: dict[int, Any] = {}
    self._has_own_weights: set[int] = set()

  def check(self, model: Any, layers: Iterable[Any]) -> None:
    """Converts layers of a model, without weights, and raises one ValueError for those without a counterpart."""
    wrong = collections.defaultdict(dict)
    for layer in layers:
      try:
        self.layer(layer)
      except NotConvertible as error:
        wrong[f"({type(layer).__name__}) {error}"][layer.name] = None
    checks.raise_for(model, wrong)

  def run(self, model: Any) -> Any:
    """Converts a model that was checked."""
    made = self.model(model)
    weights.copy_model_flags(model, model.trainable, made, self.made, self.graph_of)
    return made

  def layer(self, source: Any) -> Any:
    """The unbuilt counterpart of a layer; a built model of a model; None of an operation."""
    if id(source) not in self.made:
      made = self._own(source) if type(source) in self.own else self._layer(source)
      if made is None:
        return None
      self.made[id(source)] = made
    return self.made[id(source)]

  def model(self, source: Any) -> Any:
    """Converts a model and its weights."""
    if id(source) not in self.made:
      made = self._model(source)
      for layer in source.layers:
        if id(layer) in self.made and self.graph_of(layer) is None:
          self._set_weights(layer, self.made[id(layer)])
      self.made[id(source)] = made
    return self.made[id(source)]

  @abc.abstractmethod
  def graph_of(self, layer: Any) -> Any:
    """The model of the old library that a layer is, or that it was expanded to; None for other layers."""

  @abc.abstractmethod
  def _layer(self, source: Any) -> Any:
    """Converts a layer that is not the user's own, see `layer`."""

  @abc.abstractmethod
  def _model(self, source: Any) -> Any:
    """Converts a model without the weights of its layers."""

  def _own(self, source: Any) -> Any:
    made = self.own[type(source)](source)
    if not isinstance(made, self._library.layers.Layer):
      raise TypeError(
        f"layers[{type(source).__name__}] returned {type(made).__name__}: return a layer of {self._name}."
      )
    setattr(made, "_name" if hasattr(made, "_name") else "name", source.name)
    if made.built:
      self._has_own_weights.add(id(source))
    return made

  def _set_weights(self, source: Any, made: Any) -> None:
    if type(source) not in self.own:
      weights.copy(source, made)
    elif id(source) not in self._has_own_weights:
      weights.copy_in_order(source, made)
    if isinstance(made, self._library.layers.Normalization):
      made.finalize_state()
