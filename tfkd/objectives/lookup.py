"""Objectives by name: derived from the classes, so that a new class is found without being entered anywhere."""

import difflib
import inspect
from builtins import list as builtin_list

import tf_keras as keras

from tfkd.objectives.base import Objective, snake_case


def list():
  """Names of all objectives, snake case, one's own registered classes included.

  >>> "soft_targets" in list()
  True
  """
  return sorted(_classes())


def get(identifier):
  """Makes an objective from its name or configuration, as `keras.losses.get` does with losses.

  Args:
    identifier: an `Objective`, which is returned; the name of a class that needs no arguments ("soft_targets" or
      "SoftTargets"); or a dict {"class_name": name, "config": arguments}, with the same names, or as
      `keras.saving.serialize_keras_object` gives it.

  Returns:
    `Objective`.

  Raises:
    ValueError: no such objective, or its arguments don't fit.
  """
  if isinstance(identifier, Objective):
    return identifier
  if isinstance(identifier, dict) and "registered_name" in identifier:
    return keras.saving.deserialize_keras_object(identifier)
  config = {}
  if isinstance(identifier, dict):
    unknown = identifier.keys() - {"class_name", "config"}
    if unknown or "class_name" not in identifier:
      raise ValueError(
        f'expected a dict {{"class_name": name, "config": arguments}}; got keys {builtin_list(identifier)}.'
      )
    identifier, config = identifier["class_name"], identifier.get("config", {})
  classes = _classes()
  name = snake_case(str(identifier).rpartition(">")[2])
  if name not in classes:
    near = difflib.get_close_matches(name, classes)
    hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
    raise ValueError(f"unknown objective {identifier!r}; {hint}There are: {', '.join(list())}.")
  try:
    return classes[name].from_config(config)
  except TypeError as error:
    signature = inspect.signature(classes[name])
    raise ValueError(f"objective '{name}' takes {signature}; got {config} ({error}).") from error


def _classes():
  found, waiting = {}, [Objective]
  while waiting:
    cls = waiting.pop()
    waiting += cls.__subclasses__()
    # Bases are not registered with Keras: they are nothing to build.
    if keras.saving.get_registered_name(cls) != cls.__name__:
      found[snake_case(cls.__name__)] = cls
  return found
