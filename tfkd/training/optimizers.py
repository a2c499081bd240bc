"""Optimizers and learning rates that a training may name."""

import tf_keras as keras

_MOMENTUM = 0.9
_BATCH_SIZE = 128  # Of unscaled learning rates.

OPTIMIZERS = {
  "adam": keras.optimizers.Adam,
  "sgd": lambda *args, **kwargs: keras.optimizers.SGD(*args, momentum=_MOMENTUM, **kwargs),
}


@keras.utils.register_keras_serializable(package="tfkd")
class WarmUp(keras.optimizers.schedules.LearningRateSchedule):
  """Another schedule, whose rate rises linearly from zero in the first steps.

  Args:
    schedule: Keras schedule.
    steps: steps of the rise, >= 1.
  """

  def __init__(self, schedule, steps):
    self.schedule = schedule
    self.steps = steps

  def __call__(self, step):
    rate = self.schedule(step)
    return rate * keras.backend.minimum(keras.backend.cast(step, rate.dtype) / self.steps, 1.0)

  def get_config(self):
    return {"schedule": keras.optimizers.schedules.serialize(self.schedule), "steps": self.steps}

  @classmethod
  def from_config(cls, config):
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


def optimizer(training, learning_rate, steps):
  """Makes the optimizer of one fit.

  Weight decay is Keras': decoupled from the gradient (arXiv:1711.05101), and of kernels only, not of biases, batch
  normalisation and what connectors learn beside kernels. PyTorch's 5e-4, which is part of the gradient, takes with
  momentum 0.9 in the long run as much as 5e-3 does here.

  Args:
    training: `Training`; optimizer, schedule, warm_up, weight_decay, ema and scale_learning_rate with batch_size are
      read.
    learning_rate: the highest one, before it is scaled.
    steps: steps of the fit; at the last, "cosine" has come to zero.

  Returns:
    `tf_keras` optimizer.

  Raises:
    ValueError: an unknown name, a value out of range, or so few steps that the moving average still holds a hundredth
      of the weights before training.
  """
  for name, known in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES)):
    if getattr(training, name) not in known:
      raise ValueError(f"unknown {name} {getattr(training, name)!r}: expected one of {', '.join(known)}.")
  if not (0 <= training.warm_up < 1 and 0 <= training.ema < 1 and training.weight_decay >= 0):
    raise ValueError(
      "warm_up and ema must be in [0, 1), weight_decay >= 0; got "
      f"{training.warm_up}, {training.ema} and {training.weight_decay}."
    )
  if training.ema**steps > 0.01:
    raise ValueError(
      f"after {steps} steps a moving average with ema={training.ema} still holds {100 * training.ema**steps:.0f} % of "
      f"the weights before training: use at most {0.01 ** (1 / steps):.4f}, or more epochs."
    )
  if training.scale_learning_rate:
    learning_rate *= training.batch_size / _BATCH_SIZE
  schedule = SCHEDULES[training.schedule](learning_rate, steps, round(training.warm_up * steps))
  options = {"use_ema": True, "ema_momentum": training.ema} if training.ema else {}
  made = OPTIMIZERS[training.optimizer](schedule, weight_decay=training.weight_decay or None, **options)
  if training.weight_decay:
    made.exclude_from_weight_decay(var_names=["^(?!.*kernel)"])
  return made
