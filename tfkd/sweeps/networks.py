"""Networks of a sweep, given by the names of `tfkd.models` or by functions that build them."""

import functools
import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
import tf_keras as keras

from tfkd import models
from tfkd.sweeps.outputs import Outputs

Network: TypeAlias = str | Callable[[Any, Any], Any]
"""Name of a network, or a function of (num_outputs, input_shape) that builds one."""


def check(network: Network) -> None:
  """Checks that a network can be built.

  Raises:
    ValueError: `tfkd.models` has no network of this name.
    TypeError: network is neither a name nor a function.
  """
  if isinstance(network, str):
    models.parse(network)
  elif isinstance(network, keras.Model) or not callable(network):
    raise TypeError(f"a network must be a name or a function of (num_outputs, input_shape); got {network!r}.")


def build(network: Network, outputs: Outputs, input_shape: Any) -> Any:
  """Builds a network.

  Args:
    network: name or function.
    outputs: what the network must return.
    input_shape: shape of one input, such as (height, width, channels); for several inputs a dict of shapes.

  Returns:
    A `tf_keras` model, or of a function for the teacher also another teacher of `tfkd.Distiller`.

  Raises:
    ValueError: a network given by name cannot have these outputs, or the network has others.
  """
  if isinstance(network, str):
    if outputs.task not in ("classes", "multi-label", "regression"):
      raise ValueError(
        f"{network} returns one vector for each example, and the task is {outputs.task!r}: give a function of "
        "(num_outputs, input_shape) that builds a network."
      )
    return models.build(network, outputs.size, input_shape)
  model = network(outputs.size, input_shape)
  outputs.check_network(name_of(network), model)
  return model


def name_of(network: Network) -> str:
  """Returns the name of a network in results and file names.

  Args:
    network: name, or function, whose qualified name counts; a `functools.partial` has the name of its function and its
      arguments.
  """
  if isinstance(network, str):
    return network
  if isinstance(network, functools.partial):
    arguments = [repr(value) for value in network.args]
    arguments += [f"{name}={value!r}" for name, value in network.keywords.items()]
    return f"{name_of(network.func)}({', '.join(arguments)})"
  return getattr(network, "__qualname__", type(network).__qualname__)


def structure_digest(model: keras.Model) -> str:
  """Computes a SHA-256 of a model's layers: classes, configurations, connections, and shapes of the weights.

  The names of layers do not count, since Keras numbers them through a process.
  """
  layers = list(model._flatten_layers())
  names = {layer.name: f"layer {number}" for number, layer in enumerate(layers)}
  parts = [
    [type(layer).__name__, _config(layer, names), [list(weight.shape) for weight in layer.weights]] for layer in layers
  ]
  return hashlib.sha256(json.dumps(parts, sort_keys=True, default=_to_json).encode()).hexdigest()


def _config(layer, names):
  try:
    return _renamed(layer.get_config(), names)
  except NotImplementedError:
    return None  # A custom layer without a configuration: its class and the shapes of its weights remain.


def _renamed(config, names):
  if isinstance(config, Mapping):
    return {key: _renamed(value, names) for key, value in config.items() if key != "name"}
  if isinstance(config, (list, tuple)):
    return [_renamed(value, names) for value in config]
  return names.get(config, config) if isinstance(config, str) else config


def _to_json(value):
  return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else type(value).__qualname__
