"""Outputs of a model and the features of its tapped layers, and how nested outputs are addressed."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import tensorflow as tf


class ModelOutputs(NamedTuple):
  """Everything that one forward pass of a model gives to objectives.

  Attributes:
    outputs: the model's outputs: a tensor, or a list, tuple or dict of tensors.
    features: outputs of tapped layers by layer name.
  """

  outputs: Any
  features: Mapping[str, tf.Tensor] = {}


def keys_of(structure: Any) -> list[Any]:
  """Keys or indices of nested outputs; None is the key of a single output."""
  if not tf.nest.is_nested(structure):
    return [None]
  return list(structure) if isinstance(structure, dict) else list(range(len(structure)))


def flat_keys_of(structure: Any) -> list[Any]:
  """Keys or indices of nested outputs, in the order of `tf.nest.flatten`."""
  return sorted(structure) if isinstance(structure, dict) else keys_of(structure)


def part_of(structure: Any, key: Any) -> Any:
  """Returns one output of a structure, or None if the structure has no such key."""
  if structure is None or not tf.nest.is_nested(structure):
    return structure
  return structure[key] if key in keys_of(structure) else None


def pick(structure: Any, key: Any, owner: str, objective_name: str) -> Any:
  """Returns the one tensor of a model's outputs, labels or weights that an objective reads.

  Args:
    structure: a tensor, or nested tensors.
    key: the objective's `output`; None if there is a single output.
    owner: "teacher", "student", "labels" or "sample_weight", for the message.
    objective_name: name of the objective, for the message.

  Raises:
    ValueError: there are several outputs, and `key` is not the key of one.
  """
  if not tf.nest.is_nested(structure):
    return structure
  keys = keys_of(structure)
  if key is None and len(keys) == 1:
    return structure[keys[0]]
  if key not in keys:
    raise ValueError(f"{owner} has several outputs, {keys}: objective '{objective_name}' got output={key!r}.")
  return structure[key]
