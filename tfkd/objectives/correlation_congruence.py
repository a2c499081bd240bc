"""Correlation congruence: a kernel between the examples of a batch (Peng et al. 2019)."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfkd import losses
from tfkd.objectives.tapped import EmbeddingObjective


@keras.utils.register_keras_serializable(package="tfkd")
class CorrelationCongruence(EmbeddingObjective):
  """Examples correlate in the student's embedding as they do in the teacher's (CC).

  Use it in addition to `SoftTargets`, as the paper does, with batches in which classes repeat.
  Source: Peng et al. 2019, arXiv:1904.01802; see `tfkd.losses.correlation_congruence`.

  Args:
    teacher_layer, student_layer, connector: see `EmbeddingObjective`.
    gamma: positive number, the kernel's width is 1 / sqrt(2 gamma).
    order: int >= 1, terms of the kernel's Taylor series.
    **options: weight, output and name, see `Objective`.
  Inputs: pair of lists of float [batch, d], sequences or maps. Output: float32 scalar, dimensionless.
  Example: tfkd.objectives.CorrelationCongruence("flatten", "flatten")
  """

  acronyms = ("CC", "CCKD")
  default_weight = 100.0  # AberHu/Knowledge-Distillation-Zoo's, for the same mean, gamma and order.

  def __init__(
    self,
    teacher_layer: str | Sequence[str],
    student_layer: str | Sequence[str],
    *,
    connector: str | keras.layers.Layer | None = None,
    gamma: float = 0.4,
    order: int = 2,
    **options: Any,
  ):
    super().__init__(teacher_layer, student_layer, connector=connector, **options)
    self.gamma = gamma
    self.order = order

  def distance(self, teacher: tf.Tensor, student: tf.Tensor) -> tf.Tensor:
    return losses.correlation_congruence(teacher, student, gamma=self.gamma, order=self.order)
