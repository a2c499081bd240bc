"""One traced training function for students of a sweep that differ only in seed, temperatures or weights."""

import collections
import json
import numbers
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfkd import Distiller
from tfkd.objectives import Objective

_KEPT = 4  # Distillers with their graphs. Sweeps train method after method for each seed.


class SharedDistillers:
  """Reuses a traced distiller for the next student of the same graph.

  Tracing a quantized student takes seconds, as long as a short training. Temperatures and weights are variables here,
  so that other values need no new trace. The result equals that of a separate distiller for each student.
  """

  def __init__(self) -> None:
    self._traced: collections.OrderedDict[str, Distiller] = collections.OrderedDict()

  def share(self, distiller: Distiller, recipe: Sequence[Any]) -> Distiller:
    """Returns a distiller in the state of the given one.

    Args:
      distiller: new, compiled and built; `with_variables` was applied to its objectives.
      recipe: JSON values that decide the graph in addition to the objectives: network, scheme, number of epochs,
        and the split, whose size decides the schedule of the learning rate.

    Returns:
      `distiller`, or an earlier one of the same graph, set to the same state.
    """
    if any(hasattr(layer, "_random_generator") for layer in distiller._flatten_layers()):
      return distiller  # The trace contains the seed.
    key = _key(distiller, recipe)
    earlier = self._traced.pop(key, None)
    if earlier is not None:
      for own, new in zip(_state(earlier), _state(distiller), strict=True):
        own.assign(new)
      distiller = earlier
    self._traced[key] = distiller
    while len(self._traced) > _KEPT:
      self._traced.popitem(last=False)
    return distiller


def with_variables(objectives: Sequence[Objective], hard_loss_weight: float) -> tf.Variable | float:
  """Turns weights and temperatures, which may differ between students of one trace, into variables.

  It must be called in the strategy's scope.

  Args:
    objectives: changed in place.
    hard_loss_weight: weight of the hard loss.

  Returns:
    hard_loss_weight, as a variable unless it is 0, since the graph then reads no labels.
  """
  for objective in objectives:
    for name in ("weight", "temperature"):
      value = getattr(objective, name, None)
      if isinstance(value, numbers.Real):
        setattr(objective, name, _variable(value))
  return _variable(hard_loss_weight) if hard_loss_weight else 0.0


def _variable(value: Any) -> tf.Variable:
  return tf.Variable(value, trainable=False, dtype=tf.float32)


def _key(distiller, recipe):
  configs = []
  for objective in distiller.objectives:
    config = objective.get_config()
    values = {
      name: None if isinstance(getattr(objective, name, None), tf.Variable) else config[name] for name in config
    }
    configs.append([type(objective).__name__, values])
  teacher = id(getattr(distiller.teacher, "model", distiller.teacher))  # It lives as long as the distiller.
  has_hard_loss = isinstance(distiller.hard_loss_weight, tf.Variable)
  return json.dumps([recipe, teacher, has_hard_loss, configs], sort_keys=True, default=repr)


def _state(distiller):
  """Lists the variables that training starts from, in a fixed order. Metrics are reset by every fit."""
  distiller.optimizer.build(distiller.trainable_variables)
  own = [v for part in (distiller.student, *distiller.objectives) for v in part.variables]
  hard = [distiller.hard_loss_weight] if isinstance(distiller.hard_loss_weight, tf.Variable) else []
  return [*own, *hard, *distiller.optimizer.variables]
