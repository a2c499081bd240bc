"""Normalized knowledge distillation: target class, and the others renormalised (Yang et al. 2023)."""

import tensorflow as tf
import tf_keras as keras

from tfkd import losses
from tfkd.objectives.base import class_indices
from tfkd.objectives.logits import LogitObjective


@keras.utils.register_keras_serializable(package="tfkd")
class Normalized(LogitObjective):
  """Cross-entropy on the label, weighted by the teacher's confidence, and between the other classes (NKD).

  Use it as a simpler `Decoupled`. Labels are needed.
  Source: Yang et al. 2023, arXiv:2303.13005; see `tfkd.losses.normalized`.

  Args:
    temperature: positive finite number, dimensionless, of the other classes.
    gamma: weight of the other classes' term.
    weight, standardize, output, name: see `LogitObjective`.
  Inputs: (teacher logits, student logits [batch, ..., classes], labels [batch, ...]). Output: float32 [batch, ...].
  Example: tfkd.objectives.Normalized(gamma=1.5)
  """

  reads_labels = True

  def __init__(self, temperature=1.0, gamma=1.5, weight=1.0, standardize=False, output=None, name=None, **kwargs):
    super().__init__(temperature, weight, standardize, output, name, **kwargs)
    self.gamma = gamma

  def call(self, inputs):
    teacher, student = self.logits(*inputs[:2])
    labels = class_indices(inputs[2], student.shape[-1], student.shape.rank - 1)
    # The loss is on rows: tokens and pixels are rows as well.
    values = losses.normalized(
      *(tf.reshape(t, [-1, t.shape[-1]]) for t in (teacher, student)),
      tf.reshape(labels, [-1]),
      self.temperature,
      gamma=self.gamma,
    )
    return tf.reshape(values, tf.shape(labels))

  def get_config(self):
    return {**super().get_config(), "gamma": self.gamma}
