"""Students that learn from soft targets, with their flags, for several experiments."""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from absl import flags

from tfkd.objectives import Objective, SoftTargets
from tfkd.sweeps import StudentSpec

flags.DEFINE_float("temperature", None, "Temperature of the soft targets. [preset]")
flags.DEFINE_float("alpha", None, "Weight of the soft loss; the hard loss has weight 1 - alpha. [preset]", 0.0, 1.0)
flags.register_validator("temperature", lambda t: t is None or 0 < t < math.inf, "expected a positive finite number")


def response(
  experiment: str,
  method: str,
  seed: int,
  temperature: float,
  alpha: float,
  objectives: tuple[Objective, ...] = (),
  choices: Mapping[str, Any] = MappingProxyType({}),
  **fields: Any,
) -> StudentSpec:
  """Returns a student of alpha * T^2 * KL(teacher || student) + (1 - alpha) * cross-entropy, averaged over the batch.

  Args:
    experiment, method, seed: see `StudentSpec`.
    temperature: T of the soft loss, positive.
    alpha: weight of the soft loss, in [0, 1].
    objectives: objectives added to the soft loss.
    choices: see `StudentSpec`; alpha is added.
    **fields: further fields of `StudentSpec`.
  """
  return StudentSpec(
    experiment,
    method,
    flags.FLAGS.scheme,
    seed,
    (SoftTargets(temperature, weight=alpha), *objectives),
    1 - alpha,
    temperature,
    {"alpha": alpha, **choices},
    **fields,
  )


def labels_or_response(experiment: str, is_distilled: bool, seed: int, scheme: str, **fields: Any) -> StudentSpec:
  """Returns a student of a scheme that learns from labels, or also from soft targets with the weights of the flags.

  Args:
    experiment, seed, scheme: see `StudentSpec`.
    is_distilled: whether it learns from the teacher.
    **fields: further fields of `StudentSpec`.
  """
  if not is_distilled:
    return StudentSpec(experiment, "labels", scheme, seed, **fields)
  given = flags.FLAGS
  student = response(experiment, "labels + teacher", seed, given.temperature, given.alpha, **fields)
  return student._replace(scheme=scheme)
