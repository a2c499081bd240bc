"""One traced function for the students of a sweep that differ in seed, temperature or weights alone."""

import collections
import json
import numbers

import tensorflow as tf

_KEPT = 4  # Distillers with their graphs: methods take turns, seed by seed.


class SharedDistillers:
  """Hands the next student's weights and numbers to a distiller that is traced already.

  Tracing a quantized student takes seconds, as much as a short training. It reads temperatures and weights as variables
  here, so that other values need no other trace; the result is the one that a distiller of its own would reach.
  """

  def __init__(self):
    self._traced = collections.OrderedDict()

  def share(self, distiller, recipe):
    """Returns a distiller in the state of another.

    Args:
      distiller: a new one, compiled and built, whose objectives' numbers `with_variables` made variables.
      recipe: JSON values that decide the graph beside the objectives: network, scheme, number of steps.

    Returns:
      `distiller`, or an earlier one of the same graph that now has its state.
    """
    if any(hasattr(layer, "_random_generator") for layer in distiller._flatten_layers()):
      return distiller  # The trace holds the seed.
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


def with_variables(objectives, hard_loss_weight):
  """Makes variables of what may differ between students of one trace: weights and temperatures.

  Args:
    objectives: list of `Objective`, changed in place. To be called in the strategy's scope.
    hard_loss_weight: number.

  Returns:
    hard_loss_weight, as a variable unless it is 0: without a hard loss the graph reads no labels.
  """
  for objective in objectives:
    for name in ("weight", "temperature"):
      value = getattr(objective, name, None)
      if isinstance(value, numbers.Real):
        setattr(objective, name, tf.Variable(value, trainable=False, dtype=tf.float32))
  return tf.Variable(hard_loss_weight, trainable=False, dtype=tf.float32) if hard_loss_weight else 0.0


def _key(distiller, recipe):
  configs = []
  for objective in distiller.objectives:
    config = objective.get_config()
    values = {
      name: None if isinstance(getattr(objective, name, None), tf.Variable) else config[name] for name in config
    }
    configs.append([type(objective).__name__, values])
  teacher = id(getattr(distiller.teacher, "model", distiller.teacher))  # Alive as long as the distiller.
  has_hard_loss = isinstance(distiller.hard_loss_weight, tf.Variable)
  return json.dumps([recipe, teacher, has_hard_loss, configs], sort_keys=True, default=repr)


def _state(distiller):
  """Every variable that a training starts from, in a fixed order; metrics begin at zero by themselves."""
  distiller.optimizer.build(distiller.trainable_variables)
  own = [v for part in (distiller.student, *distiller.objectives) for v in part.variables]
  hard = [distiller.hard_loss_weight] if isinstance(distiller.hard_loss_weight, tf.Variable) else []
  return [*own, *hard, *distiller.optimizer.variables]
