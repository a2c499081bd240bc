"""Optimizers and learning rate schedules by name."""

from collections.abc import Mapping
from typing import Any

import tensorflow as tf
import tf_keras as keras

_MOMENTUM = 0.9
_BATCH_SIZE = 128  # The batch size to which unscaled learning rates refer.

OPTIMIZERS = {
  "adam": keras.optimizers.Adam,
  "sgd": lambda *args, **kwargs: keras.optimizers.SGD(*args, momentum=_MOMENTUM, **kwargs),
}


@keras.utils.register_keras_serializable(package="tfkd")
class WarmUp(keras.optimizers.schedules.LearningRateSchedule):
  """Multiplies another schedule by a factor that rises linearly from 0 to 1 over the first steps.

  Args:
    schedule: Keras schedule.
    steps: number of steps of the rise, >= 1.
  """

  def __init__(self, schedule: keras.optimizers.schedules.LearningRateSchedule, steps: int):
    self.schedule = schedule
    self.steps = steps

  def __call__(self, step: tf.Tensor) -> tf.Tensor:
    rate = self.schedule(step)
    return rate * keras.backend.minimum(keras.backend.cast(step, rate.dtype) / self.steps, 1.0)

  def get_config(self) -> dict[str, Any]:
    return {"schedule": keras.optimizers.schedules.serialize(self.schedule), "steps": self.steps}

  @classmethod
  def from_config(cls, config: Mapping[str, Any]) -> "WarmUp":
    return cls(keras.optimizers.schedules.deserialize(config["schedule"]), config["steps"])


def _cosine(learning_rate, steps, warm_up):
  if not warm_up:
    return keras.optimizers.schedules.CosineDecay(learning_rate, steps)
  return keras.optimizers.schedules.CosineDecay(0.0, steps - warm_up, warmup_target=learning_rate, warmup_steps=warm_up)


def _step(learning_rate, steps, warm_up):
  """A tenth after 62.5, 75 and 87.5 % of the steps: epochs 150, 180 and 210 of 240 (Tian et al. 2020)."""
  boundaries = [round(share * steps) for share in (0.625, 0.75, 0.875)]
  schedule = keras.optimizers.schedules.PiecewiseConstantDecay(boundaries, [learning_rate * 0.1**i for i in range(4)])
  return WarmUp(schedule, warm_up) if warm_up else schedule


SCHEDULES = {"cosine": _cosine, "step": _step}


def scaled_learning_rate(learning_rate: float, batch_size: int) -> float:
  """Scales a learning rate for batches of 128 linearly to another batch size.

  Source: Goyal et al. 2017, arXiv:1706.02677, section 2.1.

  Args:
    learning_rate: for batches of 128 examples.
    batch_size: examples per step, over all replicas.

  Returns:
    learning_rate * batch_size / 128.
  """
  return learning_rate * batch_size / _BATCH_SIZE


def make_optimizer(
  name: str,
  learning_rate: float,
  steps: int,
  *,
  schedule: str = "cosine",
  warm_up: float = 0.05,
  weight_decay: float = 0.0,
  ema: float = 0.0,
) -> keras.optimizers.Optimizer:
  """Makes the optimizer of one fit.

  Weight decay is Keras': decoupled from the gradient (arXiv:1711.05101), and applied to kernels only, not to biases,
  batch normalization and the connectors' other variables. PyTorch's 5e-4, which is part of the gradient, shrinks
  weights at momentum 0.9 about as fast as 5e-3 does here.

  Args:
    name: a key of `OPTIMIZERS`: "adam", or "sgd" with momentum 0.9.
    learning_rate: peak learning rate.
    steps: number of steps of the fit; "cosine" reaches zero at the last one.
    schedule: a key of `SCHEDULES`: "cosine", or "step" for a tenth after 62.5, 75 and 87.5 % of the steps.
    warm_up: share of the steps over which the learning rate rises from zero, in [0, 1).
    weight_decay: each step subtracts learning rate * weight_decay * kernel, >= 0.
    ema: momentum of the moving average of the weights, which is kept at the end, in [0, 1); 0 disables averaging.

  Returns:
    `tf_keras` optimizer.

  Raises:
    ValueError: a name is unknown, a value is out of range, or after so few steps the moving average would still hold
      more than a hundredth of the initial weights.
  """
  for argument, value, known in (("optimizer", name, OPTIMIZERS), ("schedule", schedule, SCHEDULES)):
    if value not in known:
      raise ValueError(f"unknown {argument} {value!r}: expected one of {', '.join(known)}.")
  if not (0 <= warm_up < 1 and 0 <= ema < 1 and weight_decay >= 0):
    raise ValueError(f"warm_up and ema must be in [0, 1), weight_decay >= 0; got {warm_up}, {ema} and {weight_decay}.")
  if ema**steps > 0.01:
    raise ValueError(
      f"after {steps} steps a moving average with ema={ema} still holds {100 * ema**steps:.0f} % of the initial "
      f"weights: use at most {0.01 ** (1 / steps):.4f}, or more epochs."
    )
  rates = SCHEDULES[schedule](learning_rate, steps, round(warm_up * steps))
  options = {"use_ema": True, "ema_momentum": ema} if ema else {}
  optimizer = OPTIMIZERS[name](rates, weight_decay=weight_decay or None, **options)
  if weight_decay:
    optimizer.exclude_from_weight_decay(var_names=["^(?!.*kernel)"])
  return optimizer
