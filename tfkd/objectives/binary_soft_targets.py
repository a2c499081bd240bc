"""Soft targets of independent labels: sigmoid in place of softmax."""

from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfkd import losses
from tfkd.objectives.base import Objective
from tfkd.objectives.logits import check_is_temperature
from tfkd.objectives.match import check_same_outputs


@keras.utils.register_keras_serializable(package="tfkd")
class BinarySoftTargets(Objective):
  """The student reproduces the teacher's probability of each label, independently of the other labels.

  Use it where a loss on labels would be `BinaryCrossentropy`: several labels for one input, one logit for two classes,
  masks [batch, height, width, 1]. The mean is over the last axis, as in that loss, and the term is multiplied by T^2.
  Source: Hinton, Vinyals, Dean 2015, arXiv:1503.02531, for two classes with logits (z, 0); see
  `tfkd.losses.binary_soft_target_kl`.

  Args:
    temperature: positive finite number, dimensionless.
    scale_by_t2: whether to multiply by temperature squared.
    **options: weight, output and name, see `Objective`.
  Inputs: pair of logits [batch, ..., labels], or [batch] for one label. Output: float32 [batch, ...], in nats.
  Example: tfkd.objectives.BinarySoftTargets(temperature=2.0)

  Raises:
    TypeError: temperature is no number.
    ValueError: temperature is not positive and finite, or the outputs have different shapes.
  """

  reads_binary_logits = True

  def __init__(self, temperature: float | tf.Variable = 1.0, *, scale_by_t2: bool = True, **options: Any):
    super().__init__(**options)
    self.temperature = temperature
    self.scale_by_t2 = scale_by_t2

  def __setattr__(self, name: str, value: Any) -> None:
    if name == "temperature":
      check_is_temperature(value)
    super().__setattr__(name, value)

  def check_shapes(self, teacher: tf.TensorShape | None, student: tf.TensorShape | None) -> None:
    check_same_outputs(teacher, student, self.name)

  def call(self, inputs: tuple) -> tf.Tensor:
    teacher, student = inputs
    check_same_outputs(teacher.shape, student.shape, self.name)
    if student.shape.rank == 1:
      teacher, student = teacher[:, None], student[:, None]
    loss = losses.binary_soft_target_kl(teacher, student, self.temperature)
    return loss * self.temperature**2 if self.scale_by_t2 else loss
