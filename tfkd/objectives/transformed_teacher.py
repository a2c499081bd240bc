"""Transformed teacher matching: a temperature for the teacher only (Zheng, Yang 2024)."""

from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfkd import losses
from tfkd.objectives.logits import LogitObjective


@keras.utils.register_keras_serializable(package="tfkd")
class TransformedTeacher(LogitObjective):
  """The student, unsoftened, reproduces the softened teacher (TTM, and WTTM if weighted).

  Use it in place of soft targets if the student is deployed as a probability model: it is trained at T = 1.
  Source: Zheng, Yang 2024, arXiv:2402.11148; see `tfkd.losses.transformed_teacher`.

  Args:
    temperature: positive finite number, dimensionless; the teacher's.
    weighted: whether examples count more if the teacher is less confident.
    **options: weight, standardize, output and name, see `LogitObjective`.
  Inputs: pair of logits [batch, ..., classes]. Output: float32 [batch, ...], in nats.
  Example: tfkd.objectives.TransformedTeacher(temperature=2.0)
  """

  acronyms = ("TTM",)

  def __init__(self, temperature: float | tf.Variable = 2.0, *, weighted: bool = False, **options: Any):
    super().__init__(**options)
    self.temperature = temperature
    self.weighted = weighted

  def call(self, inputs: tuple) -> tf.Tensor:
    return losses.transformed_teacher(*self.logits(*inputs), temperature=self.temperature, weighted=self.weighted)
