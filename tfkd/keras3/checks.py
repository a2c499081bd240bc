"""Checks of models before they are converted; all layers without a counterpart are named at once."""

from collections.abc import Container, Iterable, Iterator, Mapping
from typing import Any

import tf_keras as keras

from tfkd.keras3.library import is_keras3


def check_is_model(model: Any) -> None:
  """Raises TypeError unless `model` is a Keras 3 model."""
  if isinstance(model, keras.Model):
    raise TypeError(f"model {model.name!r} is of tf_keras already: use it as it is, or convert it with tfkd.to_keras3.")
  if not is_keras3(model) or not hasattr(model, "layers"):
    raise TypeError(f"model is a {type(model).__name__}: expected a functional or Sequential model of Keras 3.")


def check_model(model: Any, keras3: Any) -> None:
  """Raises ValueError for a model, or one nested in it, that has no graph of layers."""
  kinds = (type(_empty(keras3)), keras3.Sequential)
  kind = next((kind for kind in kinds if isinstance(model, kind)), None)
  if kind is None or type(model).call is not kind.call:
    raise ValueError(
      f"Model {model.name!r} ({type(model).__name__}) is subclassed with a call of its own, which cannot be converted: "
      "build the same layers as a functional model, keras.Model(inputs, outputs), and convert that."
    )
  if kind is keras3.Sequential and model._functional is None:
    raise ValueError(
      f"Model {model.name!r} is not built, so its layers have no weights: start it with keras.Input(shape), or call it "
      "on data once, before it is converted."
    )


def check_is_tf_keras(model: Any) -> None:
  """Raises TypeError unless `model` is a `tf_keras` model."""
  if is_keras3(model):
    raise TypeError(f"model {getattr(model, 'name', model)!r} is of Keras 3 already: use it as it is.")
  if not isinstance(model, keras.Model):
    raise TypeError(f"model is a {type(model).__name__}: expected a functional or Sequential model of tf_keras.")


def check_graph(model: keras.Model) -> None:
  """Raises ValueError for a `tf_keras` model that has no graph of layers."""
  inputs = keras.Input((1,))
  kinds = (keras.Sequential, type(keras.Model(inputs, inputs)))
  kind = next((kind for kind in kinds if isinstance(model, kind)), None)
  if kind is None or type(model).call is not kind.call:
    raise ValueError(
      f"Model {model.name!r} ({type(model).__name__}) is subclassed with a call of its own, which cannot be converted: "
      "build the same layers as a functional model, keras.Model(inputs, outputs), and convert that."
    )
  if not getattr(model, "inputs", None):
    raise ValueError(
      f"Model {model.name!r} is not built, so its layers have no weights: start it with keras.Input(shape), or call it "
      "on data once, before it is converted."
    )


def _empty(keras3):
  inputs = keras3.Input((1,))
  return keras3.Model(inputs, inputs)


def operations_of(model: Any, keras3: Any, own: Container[type]) -> Iterator[Any]:
  """Layers and operations of a model and the models nested in it, without input layers and nested models.

  Args:
    model: Keras 3 model.
    keras3: the library.
    own: classes that are converted as a whole, also of models.
  """
  inner = getattr(model, "_functional", None) or model
  for operation in inner.operations:
    if isinstance(operation, keras3.Model) and type(operation) not in own:
      check_model(operation, keras3)
      yield from operations_of(operation, keras3, own)
    elif not isinstance(operation, keras3.layers.InputLayer):
      yield operation


def advice(layer: Any, keras3: Any) -> str:
  """What to do about a layer without a counterpart; it continues the layer's name."""
  name = type(layer).__name__
  base = next((b.__name__ for b in type(layer).__mro__[1:] if getattr(keras3.layers, b.__name__, None) is b), None)
  kind = f"is a subclass of {base}" if base not in (None, "Layer") else "has no counterpart in tf_keras"
  return f"{kind}: pass its conversion, layers={{{name}: convert}}"


def raise_for(model: Any, wrong: Mapping[str, Iterable[str]]) -> None:
  """Raises one ValueError for layers that cannot be converted: their names by class and reason."""
  if wrong:
    found = "; ".join(f"layer {_listed(names)} {reason}" for reason, names in wrong.items())
    raise ValueError(f"Model {model.name!r} cannot be converted: {found}.")


def _listed(names):
  names = [repr(name) for name in names]
  return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
