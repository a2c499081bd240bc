"""Objectives by name, derived from the classes: a new class needs no entry here."""

import inspect
import re
from typing import Any

import tf_keras as keras

from tfkd.objectives.base import Objective, snake_case
from tfkd.ops.spelling import did_you_mean


def names() -> list[str]:
  """Names of all objectives in snake case, including registered classes of the user.

  >>> "soft_targets" in names()
  True
  """
  return sorted(_classes())


def get(identifier: Objective | str | dict[str, Any]) -> Objective:
  """Makes an objective from its name or configuration, as `keras.losses.get` does for losses.

  Args:
    identifier: an `Objective`, which is returned; the name of a class that needs no arguments ("soft_targets" or
      "SoftTargets") or the acronym of its method ("kd"); or a dict {"class_name": name, "config": arguments} with the
      same names, or as `keras.saving.serialize_keras_object` returns it.

  Returns:
    `Objective`.

  Raises:
    ValueError: there is no such objective, several methods share the acronym, or the arguments do not fit.
  """
  if isinstance(identifier, Objective):
    return identifier
  if isinstance(identifier, dict) and "registered_name" in identifier:
    return keras.saving.deserialize_keras_object(identifier)
  config = {}
  if isinstance(identifier, dict):
    unknown = identifier.keys() - {"class_name", "config"}
    if unknown or "class_name" not in identifier:
      raise ValueError(f'expected a dict {{"class_name": name, "config": arguments}}; got keys {list(identifier)}.')
    identifier, config = identifier["class_name"], identifier.get("config", {})
  name, cls = _found(str(identifier))
  try:
    return cls.from_config(config)
  except TypeError as error:
    parameters = inspect.signature(cls).parameters.values()
    takes = inspect.Signature([p.replace(annotation=p.empty) for p in parameters])
    raise ValueError(f"objective '{name}' takes {takes}; got {config} ({error}).") from error


def _found(identifier: str) -> tuple[str, type[Objective]]:
  """Name and class of an objective by its class name, snake case name or acronym."""
  classes = _classes()
  key = _key(identifier.rpartition(">")[2])  # Keras registers as package>name.
  matches = [name for name in classes if _key(name) == key]
  matches = matches or [name for name, cls in classes.items() if key in map(_key, vars(cls).get("acronyms", ()))]
  if len(matches) == 1:
    return matches[0], classes[matches[0]]
  if matches:
    raise ValueError(f"{identifier!r} names several objectives: choose one of {', '.join(sorted(matches))}.")
  hint = did_you_mean(snake_case(identifier), classes)
  raise ValueError(f"unknown objective {identifier!r}; {hint}The names are: {', '.join(names())}.")


def _key(name: str) -> str:
  """A name without case, hyphens and underscores."""
  return re.sub(r"[-_ ]", "", name).lower()


def _classes() -> dict[str, type[Objective]]:
  found, waiting = {}, [Objective]
  while waiting:
    cls = waiting.pop()
    waiting += cls.__subclasses__()
    # Base classes are not registered with Keras: they are never instantiated.
    if keras.saving.get_registered_name(cls) != cls.__name__:
      found[snake_case(cls.__name__)] = cls
  return found
