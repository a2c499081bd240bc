"""Layers of `tf_keras` and their counterparts in Keras 3: the way back of `table`."""

import importlib
from typing import Any

import tf_keras as keras

from tfkd.keras3 import activations, substitutes
from tfkd.keras3.config import NotConvertible
from tfkd.keras3.library import constructor_defaults
from tfkd.keras3.table import SAME

_BASE = {"activity_regularizer", "dtype", "name", "trainable"}
# Entries of `tf_keras` that do not change what a layer computes.
_DROPPED = {"batch_input_shape", "force_generator", "fused", "implementation", "input_length", "rng_type", "seed"}
_DROPPED |= {"key_shape", "query_shape", "value_shape"}  # They follow from the call.
_OF_BASE_CLASS = {"kernel_constraint", "kernel_initializer", "kernel_regularizer"}  # Separable convolutions lack them.
_DEFAULTS = {"groups": 1, "sparse": False, "time_major": False, "robust_masking": False, "dtype": None}
# Classes with a single counterpart under another name or module.
_APPLICATIONS = {
  substitutes.LayerScale: ("convnext", "LayerScale", ("init_values", "projection_dim")),
  substitutes.ScaledSum: ("inception_resnet_v2", "CustomScaleLayer", ("scale",)),
  substitutes.StochasticDepth: ("convnext", "StochasticDepth", ("rate",)),
}
_WRAPPERS = {"RNN": "cell", "SpectralNormalization": "layer", "StackedRNNCells": "cells", "TimeDistributed": "layer"}


class Reverse:
  """Makes the unbuilt Keras 3 layer of a `tf_keras` layer.

  Args:
    keras3: the library.
    convert: function from an inner layer to its counterpart.
  """

  def __init__(self, keras3: Any, convert: Any):
    self.keras3, self.convert = keras3, convert

  def layer(self, source: keras.layers.Layer) -> Any:
    """Converts one layer.

    Raises:
      NotConvertible: it has no counterpart.
    """
    cls = type(source)
    if cls in _APPLICATIONS:
      module, name, attributes = _APPLICATIONS[cls]
      target = getattr(importlib.import_module(f"keras.src.applications.{module}"), name)
      return target(*[getattr(source, attribute) for attribute in attributes], **base(source))
    own = {
      substitutes.RMSNormalization: self._rms_normalization,
      substitutes.AdaptivePooling: self._adaptive,
      substitutes.GroupedQueryAttention: self._grouped_query_attention,
      substitutes.SpectralNormalization: self._wrapper,
      keras.layers.LeakyReLU: self._leaky_relu,
      keras.layers.Bidirectional: self._bidirectional,
    }
    if cls in own:
      return own[cls](source)
    if f"{cls.__module__}.{cls.__name__}" == "tfkd.models._vit.Tokens":
      from tfkd.keras3 import own_layers

      return own_layers.Tokens(**base(source))
    if getattr(keras.layers, cls.__name__, None) is not cls:
      raise NotConvertible(_advice(source))
    if cls.__name__ in _WRAPPERS:
      return self._wrapper(source)
    if cls.__name__ not in SAME:
      raise NotConvertible(f"has no counterpart in Keras 3: pass its conversion, layers={{{cls.__name__}: convert}}")
    target = getattr(self.keras3.layers, cls.__name__)
    config = source.get_config()
    if isinstance(config.get("axis"), list) and len(config["axis"]) == 1:  # Of BatchNormalization.
      config["axis"] = config["axis"][0]
    if cls.__name__.startswith("Separable"):
      config = {name: value for name, value in config.items() if name not in _OF_BASE_CLASS}
    return target(**self._entries(config, source, target))

  def _entries(self, config, source, target):
    accepted = {*constructor_defaults(target), *_BASE}
    if isinstance(source, keras.layers.RNN):
      accepted.add("zero_output_for_mask")
    defaults = {**constructor_defaults(type(source)), **_DEFAULTS}
    result = {}
    for name, value in config.items():
      if name in ("dtype", "name", "trainable") or value is None and constructor_defaults(target).get(name) is None:
        continue  # `base` has them; `trainable` is set when the weights are there.
      if name in accepted:
        result[name] = self._entry(name, value)
      elif name not in _DROPPED and value is not None and value != defaults.get(name):
        raise NotConvertible(f"has {name}={value!r}, which Keras 3 lacks")
    return {**result, **base(source)}

  def _entry(self, name, value):
    if name == "activation" or name.endswith("_activation"):
      return self._activation(value)
    if not isinstance(value, dict) or "class_name" not in value:
      return value
    for kind in ("initializers", "regularizers", "constraints"):
      if f"_{kind[:-1]}" in name:
        found = getattr(getattr(self.keras3, kind), value["class_name"], None)
        if found is None or value.get("registered_name"):
          if kind == "initializers":
            return None
          break
        accepted = constructor_defaults(found)
        return found(**{key: v for key, v in value["config"].items() if key in accepted})
    raise NotConvertible(f"has {name}={value['class_name']}, which Keras 3 lacks")

  def _activation(self, value):
    if value is None:
      return None
    name = value if isinstance(value, str) else value.get("config")
    own = isinstance(name, str) and name.removeprefix("tfkd>") in activations.OWN
    registered = isinstance(value, dict) and str(value.get("registered_name")).startswith("tfkd>")
    if own and (registered or name.startswith("tfkd>")):
      return name.removeprefix("tfkd>")
    if name == "hard_sigmoid":
      raise NotConvertible(
        "has the activation hard_sigmoid, clip(0.2 x + 0.5, 0, 1), which is another function in Keras 3"
      )
    name = {"swish": "silu"}.get(name, name)
    if not isinstance(name, str) or name not in {*activations.SAME, "silu"}:
      raise NotConvertible(f"has the activation {name}, which Keras 3 lacks")
    return name

  def _wrapper(self, source):
    name = type(source).__name__
    target, part = getattr(self.keras3.layers, name), _WRAPPERS[name]
    config = source.get_config()
    config.pop(part)
    inner = getattr(source, part)
    made = [self.convert(one) for one in inner] if isinstance(inner, list | tuple) else self.convert(inner)
    return target(**{part: made}, **self._entries(config, source, target))

  def _bidirectional(self, source):
    forward, backward = self.convert(source.forward_layer), self.convert(source.backward_layer)
    forward.name, backward.name = (
      part.name.removeprefix(prefix) for part, prefix in ((forward, "forward_"), (backward, "backward_"))
    )
    return self.keras3.layers.Bidirectional(
      forward, merge_mode=source.merge_mode, backward_layer=backward, **base(source)
    )

  def _leaky_relu(self, source):
    return self.keras3.layers.LeakyReLU(negative_slope=float(source.alpha), **base(source))

  def _rms_normalization(self, source):
    return self.keras3.layers.RMSNormalization(source.axis, source.epsilon, **base(source))

  def _adaptive(self, source):
    size = source.output_size
    rank = source.input_spec.ndim - 2 if source.input_spec else len(source.input_shape) - 2
    kind = "Average" if source.mode == "mean" else "Max"
    target = getattr(self.keras3.layers, f"Adaptive{kind}Pooling{rank}D")
    return target(size if isinstance(size, int) else tuple(size), data_format=source.data_format, **base(source))

  def _grouped_query_attention(self, source):
    config = source.get_config()
    dense = config.pop("dense")
    target = self.keras3.layers.GroupQueryAttention
    config.update(dense)
    return target(**self._entries(config, source, target))


def base(layer: keras.layers.Layer) -> dict[str, Any]:
  """Name and dtype policy of a `tf_keras` layer, as arguments of a Keras 3 layer."""
  return {"name": layer.name, "dtype": layer.dtype_policy.name}


def _advice(source):
  name = type(source).__name__
  if type(source).__module__.startswith("tensorflow_model_optimization") or name.startswith("Quantize"):
    return "is quantized: convert the float model that was given to tfkd.quantization.quantize"
  parents = [b.__name__ for b in type(source).__mro__[1:] if getattr(keras.layers, b.__name__, None) is b]
  kind = f"is a subclass of {parents[0]}" if parents[:1] not in ([], ["Layer"]) else "has no counterpart in Keras 3"
  return f"{kind}: pass its conversion, layers={{{name}: convert}}"
