"""Decoupled knowledge distillation: separate terms for target class and other classes (Zhao et al. 2022)."""

from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfkd import losses
from tfkd.objectives.base import class_indices
from tfkd.objectives.batch import Batch
from tfkd.objectives.logits import LogitObjective


@keras.utils.register_keras_serializable(package="tfkd")
class Decoupled(LogitObjective):
  """Divergences over (target, not target) and over the other classes, weighted separately (DKD).

  Use it with a confident teacher, whose soft targets hardly show its ranking of the other classes. Labels are needed.
  The authors let the weight rise from 0 over 20 epochs.
  Source: Zhao et al. 2022, arXiv:2203.08679; see `tfkd.losses.decoupled`.

  Args:
    temperature: positive finite number, dimensionless.
    alpha: weight of the target's term.
    beta: weight of the other classes' term; the authors' values lie between 0.5 (ImageNet) and 8 (CIFAR-100).
    **options: weight, standardize, output and name, see `LogitObjective`.
  Inputs: (teacher logits, student logits [batch, ..., classes], labels [batch, ...]). Output: float32 [batch, ...].
  Example: tfkd.objectives.Decoupled(temperature=4.0, beta=2.0)
  """

  acronyms = ("DKD",)

  def __init__(self, temperature: float | tf.Variable = 4.0, *, alpha: float = 1.0, beta: float = 8.0, **options: Any):
    super().__init__(**options)
    self.temperature = temperature
    self.alpha = alpha
    self.beta = beta

  @property
  def reads_top_k(self) -> bool:
    return not self.standardize

  def inputs(self, batch: Batch) -> tuple:
    return *super().inputs(batch), self.labels(batch)

  def call(self, inputs: tuple) -> tf.Tensor:
    teacher, student, labels = inputs
    (student,) = self.logits(student)
    labels = class_indices(labels, student.shape[-1], student.shape[:-1])
    shape = tf.shape(labels)
    # The loss takes rows: each token or pixel is a row.
    if isinstance(teacher, losses.TopK):
      known = losses.TopK(_rows(teacher.values), _rows(teacher.classes), tf.reshape(teacher.log_rest, [-1]))
      rows = losses.with_label_and_rest(known, _rows(student), tf.reshape(labels, [-1]), self.temperature)
    else:
      teacher, _ = self.logits(teacher, inputs[1])
      rows = _rows(teacher), _rows(student), tf.reshape(labels, [-1])
    return tf.reshape(losses.decoupled(*rows, self.temperature, alpha=self.alpha, beta=self.beta), shape)


def _rows(tensor: tf.Tensor) -> tf.Tensor:
  return tf.reshape(tensor, [-1, tensor.shape[-1]])
