"""Correlation congruence: a kernel between the examples of a batch (Peng et al. 2019)."""

import tf_keras as keras

from tfkd import losses
from tfkd.objectives.tapped import EmbeddingObjective


@keras.utils.register_keras_serializable(package="tfkd")
class CorrelationCongruence(EmbeddingObjective):
  """Examples correlate in the student's embedding as they do in the teacher's (CC).

  Use it beside `SoftTargets`, as the paper does, with batches in which classes repeat.
  Source: Peng et al. 2019, arXiv:1904.01802; see `tfkd.losses.correlation_congruence`. The default weight is that of
  AberHu/Knowledge-Distillation-Zoo, for the same mean, gamma and order.

  Args:
    teacher_layer, student_layer, weight, connector, name: see `EmbeddingObjective`.
    gamma: positive number, the kernel's width is 1 / sqrt(2 gamma).
    order: int >= 1, terms of the kernel's Taylor series.
  Inputs: pair of lists of float [batch, d] or maps. Output: float32 scalar, dimensionless.
  Example: tfkd.objectives.CorrelationCongruence("flatten", "flatten")
  """

  def __init__(
    self, teacher_layer, student_layer, weight=100.0, connector=None, gamma=0.4, order=2, name=None, **kwargs
  ):
    super().__init__(teacher_layer, student_layer, weight, connector, name, **kwargs)
    self.gamma = gamma
    self.order = order

  def distance(self, teacher, student):
    return losses.correlation_congruence(teacher, student, gamma=self.gamma, order=self.order)

  def get_config(self):
    return {**super().get_config(), "gamma": self.gamma, "order": self.order}
