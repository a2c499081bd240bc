"""Transformed teacher matching: a temperature for the teacher only (Zheng, Yang 2024)."""

import tf_keras as keras

from tfkd import losses
from tfkd.objectives.logits import LogitObjective


@keras.utils.register_keras_serializable(package="tfkd")
class TransformedTeacher(LogitObjective):
  """The student, unsoftened, reproduces the softened teacher (TTM, and WTTM if weighted).

  Use it in place of soft targets where the student is deployed as a probability model: it is trained at T = 1.
  Source: Zheng, Yang 2024, arXiv:2402.11148; see `tfkd.losses.transformed_teacher`.

  Args:
    temperature: positive finite number, dimensionless; the teacher's.
    weighted: whether examples count more where the teacher is less sure.
    weight, standardize, output, name: see `LogitObjective`.
  Inputs: pair of logits [batch, ..., classes]. Output: float32 [batch, ...], in nats.
  Example: tfkd.objectives.TransformedTeacher(temperature=2.0)
  """

  def __init__(self, temperature=2.0, weighted=False, weight=1.0, standardize=False, output=None, name=None, **kwargs):
    super().__init__(temperature, weight, standardize, output, name, **kwargs)
    self.weighted = weighted

  def call(self, pair):
    return losses.transformed_teacher(*self.logits(*pair), self.temperature, weighted=self.weighted)

  def get_config(self):
    return {**super().get_config(), "weighted": self.weighted}
