"""The response-based student of several experiments, and its flags."""

import math

from absl import flags

from tfkd.objectives import SoftTargets
from tfkd.sweeps import StudentSpec

flags.DEFINE_float("temperature", None, "Temperature of the response-based student. [preset]")
flags.DEFINE_float("alpha", None, "Its weight of the soft loss; labels have 1 - alpha. [preset]", 0.0, 1.0)
flags.register_validator("temperature", lambda t: t is None or 0 < t < math.inf, "expected a positive finite number")


def response(experiment, method, seed, temperature, alpha, objectives=(), choices=(), **fields):
  """A student of alpha * T^2 * KL(teacher || student) + (1 - alpha) * cross-entropy, means over the batch.

  Args:
    experiment, method, seed: see `StudentSpec`.
    temperature: of the soft loss, > 0.
    alpha: weight of the soft loss, in [0, 1].
    objectives: further ones.
    choices: dict, beside alpha.
    **fields: further ones of `StudentSpec`.
  """
  soft = SoftTargets(temperature, weight=alpha)
  return StudentSpec(
    experiment, method, flags.FLAGS.scheme, seed, (soft, *objectives), 1 - alpha, temperature,
    {"alpha": alpha, **dict(choices)}, **fields,
  )  # fmt: skip
