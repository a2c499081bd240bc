"""Configurations of layers: entries of Keras 3 as `tf_keras` takes them."""

import inspect
from typing import Any

import tf_keras as keras

from tfkd.keras3 import activations
from tfkd.keras3.library import constructor_defaults

# Entries that do not change what a layer computes.
_DROPPED = {"flash_attention", "gptq_unpacked_column_size", "seed", "use_cudnn"}
# Entries that classes take as keyword arguments, with their defaults.
_HIDDEN_DEFAULTS = {"rms_scaling": False}
_RECURRENT = {"zero_output_for_mask"}
_BASE = {"activity_regularizer", "dtype", "name", "trainable"}
_POLICIES = {"bfloat16", "float16", "float32", "float64", "mixed_bfloat16", "mixed_float16"}


class NotConvertible(ValueError):
  """Raised inside the package for a layer that has no counterpart; the message continues "layer 'name' (Class) "."""


def converted(layer: Any, target: type) -> dict[str, Any]:
  """The configuration of a Keras 3 layer for a class of `tf_keras`.

  Args:
    layer: Keras 3 layer.
    target: class of `tf_keras`.

  Raises:
    NotConvertible: an entry that `target` lacks is not at its default, or holds an object that `tf_keras` lacks.
  """
  return entries({**layer.get_config(), "dtype": _policy(layer)}, constructor_defaults(type(layer)), target)


def base(layer: Any) -> dict[str, Any]:
  """Name, trainable flag and dtype policy of a Keras 3 layer, as arguments of a `tf_keras` layer."""
  return {"name": layer.name, "trainable": layer.trainable, "dtype": _policy(layer)}


def entries(config: dict[str, Any], defaults: dict[str, Any], target: type) -> dict[str, Any]:
  """Converts the entries of a configuration, see `converted`; `defaults` are those of the Keras 3 class."""
  accepted = {*constructor_defaults(target), *_BASE}
  if issubclass(target, keras.layers.RNN):
    accepted |= _RECURRENT
  defaults = {**_HIDDEN_DEFAULTS, **defaults}
  result = {}
  for name, value in config.items():
    if name in accepted:
      result[name] = entry(name, value)
    elif name == "data_format" and value == "channels_last":
      continue  # All that the class has.
    elif name not in _DROPPED and not _is_default(value, defaults.get(name, inspect.Parameter.empty)):
      raise NotConvertible(f"has {name}={value!r}, which tf_keras lacks")
  if isinstance(result.get("seed"), dict):  # A shared generator.
    del result["seed"]
  return result


def _is_default(value, default):
  return value is None or value is default or (type(value) is type(default) and value == default)


def _policy(layer):
  name = layer.dtype_policy.name
  if getattr(layer, "quantization_mode", None) or name not in {*_POLICIES, *_INTEGERS}:
    raise NotConvertible(f"is quantized ({name}): convert the float model, and quantize it with tfkd.quantization")
  if getattr(layer, "lora_enabled", False):
    raise NotConvertible("has LoRA weights: save and load the model, which merges them into the kernels")
  return name


_INTEGERS = {"bool", "int8", "int16", "int32", "int64", "uint8", "string"}


def entry(name: str, value: Any) -> Any:
  """Converts one entry: activations, initializers, regularizers and constraints; others stay."""
  if name == "activation" or name.endswith("_activation"):
    return _activation(value)
  if not isinstance(value, dict) or "class_name" not in value:
    return value
  for kind in ("initializers", "regularizers", "constraints"):
    if f"_{kind[:-1]}" in name:
      return _object(name, value, kind)
  raise NotConvertible(f"has {name}={value['class_name']}, which tf_keras lacks")


def _activation(value):
  if value is None:
    return None
  name, is_known = value, True
  if isinstance(value, dict):  # A function of the user's, or a layer.
    name = value["config"] if isinstance(value.get("config"), str) else value.get("class_name", "lambda")
    is_known = value.get("module", "builtins") in ("builtins", "keras.activations")
    is_known = is_known and value.get("registered_name") in (None, "function", name)
  found = activations.converted(name) if is_known else None
  if found is None:
    raise NotConvertible(f"has the activation {name}, which tf_keras lacks")
  return found


def _object(name, value, kind):
  found = getattr(getattr(keras, kind), value["class_name"], None)
  if not str(value.get("module")).startswith("keras.") or found is None:
    if kind == "initializers":
      return None  # The weights are copied.
    raise NotConvertible(f"has {name}={value['class_name']}, which tf_keras lacks")
  accepted = constructor_defaults(found) if kind == "initializers" else value["config"]
  config = {key: v for key, v in value["config"].items() if key in accepted and not isinstance(v, dict)}
  return found.from_config(config)
