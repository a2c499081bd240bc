"""Decoupled knowledge distillation: target class and the others apart (Zhao et al. 2022)."""

import tensorflow as tf
import tf_keras as keras

from tfkd import losses
from tfkd.objectives.base import class_indices
from tfkd.objectives.logits import LogitObjective


@keras.utils.register_keras_serializable(package="tfkd")
class Decoupled(LogitObjective):
  """Divergences over (target, not target) and over the other classes, weighted apart (DKD).

  Use it where the teacher is sure of its class: plain soft targets hardly show what it makes of the others then. Labels
  are needed. The authors let the weight rise from 0 over 20 epochs.
  Source: Zhao et al. 2022, arXiv:2203.08679; see `tfkd.losses.decoupled`.

  Args:
    temperature: positive finite number, dimensionless.
    alpha: weight of the target's term.
    beta: weight of the other classes' term; the authors' lie between 0.5 (ImageNet) and 8 (CIFAR-100).
    weight, standardize, output, name: see `LogitObjective`.
  Inputs: (teacher logits, student logits [batch, ..., classes], labels [batch, ...]). Output: float32 [batch, ...].
  Example: tfkd.objectives.Decoupled(temperature=4.0, beta=2.0)
  """

  reads_labels = True

  def __init__(
    self, temperature=4.0, alpha=1.0, beta=8.0, weight=1.0, standardize=False, output=None, name=None, **kwargs
  ):
    super().__init__(temperature, weight, standardize, output, name, **kwargs)
    self.alpha = alpha
    self.beta = beta

  def call(self, inputs):
    teacher, student = self.logits(*inputs[:2])
    labels = class_indices(inputs[2], student.shape[-1], student.shape.rank - 1)
    # The loss is on rows: tokens and pixels are rows as well.
    values = losses.decoupled(
      *(tf.reshape(t, [-1, t.shape[-1]]) for t in (teacher, student)),
      tf.reshape(labels, [-1]),
      self.temperature,
      alpha=self.alpha,
      beta=self.beta,
    )
    return tf.reshape(values, tf.shape(labels))

  def get_config(self):
    return {**super().get_config(), "alpha": self.alpha, "beta": self.beta}
