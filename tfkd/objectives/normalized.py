"""Normalized knowledge distillation: target class, and the other classes renormalised (Yang et al. 2023)."""

from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfkd import losses
from tfkd.objectives.base import class_indices
from tfkd.objectives.batch import Batch
from tfkd.objectives.logits import LogitObjective


@keras.utils.register_keras_serializable(package="tfkd")
class Normalized(LogitObjective):
  """Cross-entropy on the label, weighted by the teacher's confidence, and between the other classes (NKD).

  Use it as a simpler `Decoupled`. Labels are needed.
  Source: Yang et al. 2023, arXiv:2303.13005; see `tfkd.losses.normalized`.

  Args:
    temperature: positive finite number, dimensionless, of the other classes.
    gamma: weight of the other classes' term.
    **options: weight, standardize, output and name, see `LogitObjective`.
  Inputs: (teacher logits, student logits [batch, ..., classes], labels [batch, ...]). Output: float32 [batch, ...].
  Example: tfkd.objectives.Normalized(gamma=1.5)
  """

  acronyms = ("NKD",)

  def __init__(self, temperature: float | tf.Variable = 1.0, *, gamma: float = 1.5, **options: Any):
    super().__init__(**options)
    self.temperature = temperature
    self.gamma = gamma

  def inputs(self, batch: Batch) -> tuple:
    return *super().inputs(batch), self.labels(batch)

  def call(self, inputs: tuple) -> tf.Tensor:
    teacher, student = self.logits(*inputs[:2])
    labels = class_indices(inputs[2], student.shape[-1], student.shape[:-1])
    # The loss takes rows: each token or pixel is a row.
    values = losses.normalized(
      tf.reshape(teacher, [-1, teacher.shape[-1]]),
      tf.reshape(student, [-1, student.shape[-1]]),
      tf.reshape(labels, [-1]),
      self.temperature,
      gamma=self.gamma,
    )
    return tf.reshape(values, tf.shape(labels))
