"""DIST: correlation in place of equality, within an example and within a class (Huang et al. 2022)."""

from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfkd import losses
from tfkd.objectives.logits import LogitObjective


@keras.utils.register_keras_serializable(package="tfkd")
class Dist(LogitObjective):
  """The student's probabilities correlate with the teacher's, over classes and over the batch (DIST).

  Use it with a teacher much stronger than the student: order counts, not exact values. It compares the examples of a
  batch; each replica compares its own share.
  Source: Huang et al. 2022, arXiv:2205.10536; see `tfkd.losses.dist`.

  Args:
    temperature: positive finite number, dimensionless.
    inter_weight: weight of the correlation over classes.
    intra_weight: weight of the correlation over examples.
    **options: weight, standardize, output and name, see `LogitObjective`.
  Inputs: pair of logits [batch, ..., classes]; tokens and pixels count as examples. Output: float32
  scalar, dimensionless.
  Example: tfkd.objectives.Dist(weight=2.0)
  """

  acronyms = ("DIST",)
  relational = True

  def __init__(
    self,
    temperature: float | tf.Variable = 1.0,
    *,
    inter_weight: float = 1.0,
    intra_weight: float = 1.0,
    **options: Any,
  ):
    super().__init__(**options)
    self.temperature = temperature
    self.inter_weight = inter_weight
    self.intra_weight = intra_weight

  def call(self, inputs: tuple) -> tf.Tensor:
    weights = {"inter_weight": self.inter_weight, "intra_weight": self.intra_weight}
    return losses.dist(*self.logits(*inputs), temperature=self.temperature, **weights)
