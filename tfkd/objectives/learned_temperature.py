"""Curriculum temperature: a temperature that is trained against the student (Li et al. 2023)."""

import math
from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfkd import losses
from tfkd.objectives.batch import Batch
from tfkd.objectives.logits import LogitObjective, check_is_temperature


@keras.utils.register_keras_serializable(package="tfkd")
class LearnedTemperature(LogitObjective):
  """Soft targets whose temperature is trained to make them harder, slowly (CTKD, its global temperature).

    T = low + span sigmoid(theta),   loss = T^2 KL(softmax(teacher / T) || softmax(student / T))

  The student descends and theta ascends: its gradient is reversed, by a factor that rises from 0 to 1 along a cosine.
  Source: Li et al. 2023, arXiv:2211.16231; `low`, `span` and the start are those of the authors' code. The loss
  function is `tfkd.losses.soft_target_kl`.

  Args:
    low: positive number, the lowest temperature.
    span: positive number, the range above it.
    start: initial theta, dimensionless; 1 gives T = 15.6.
    ramp_steps: optimizer steps until the reversal has full strength; the authors take 10 epochs.
    **options: weight, standardize, output and name, see `LogitObjective`.
  Inputs: pair of logits [batch, ..., classes]. Output: float32 [batch, ...], in nats.
  Example: tfkd.objectives.LearnedTemperature(ramp_steps=10 * steps_per_epoch)

  Raises:
    ValueError: low, span or ramp_steps is not positive.
  """

  acronyms = ("CTKD",)

  def __init__(
    self, *, low: float = 1.0, span: float = 20.0, start: float = 1.0, ramp_steps: int = 1000, **options: Any
  ):
    super().__init__(**options)
    check_is_temperature(low)
    if not (span > 0 and ramp_steps > 0):
      raise ValueError(f"span and ramp_steps must be positive; got {span} and {ramp_steps}.")
    self.low = low
    self.span = span
    self.start = start
    self.ramp_steps = ramp_steps
    self.theta = self.add_weight("theta", (), initializer=keras.initializers.Constant(start))

  def options(self, batch: Batch) -> dict[str, Any]:
    return {**super().options(batch), "step": batch.step}

  def call(self, inputs: tuple, step: tf.Tensor | None = None) -> tf.Tensor:
    teacher, student = self.logits(*inputs)
    theta = _reversed(tf.convert_to_tensor(self.theta), 1.0 if step is None else self._strength(step))
    temperature = self.low + self.span * tf.sigmoid(theta)
    return temperature**2 * losses.soft_target_kl(teacher, student, temperature)

  def _strength(self, step: tf.Tensor) -> tf.Tensor:
    progress = tf.minimum(tf.cast(step, tf.float32) / self.ramp_steps, 1.0)
    return (1.0 - tf.cos(math.pi * progress)) / 2.0


def _reversed(x: tf.Tensor, strength: float | tf.Tensor) -> tf.Tensor:
  """The identity, whose gradient is multiplied by -strength."""
  return tf.stop_gradient((1.0 + strength) * x) - strength * x
