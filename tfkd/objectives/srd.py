"""Simple recipe distillation: a projection, two normalisations, a logarithm (Miles, Mikolajczyk 2024)."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfkd import losses
from tfkd.features import connectors
from tfkd.objectives.tapped import TappedObjective


@keras.utils.register_keras_serializable(package="tfkd")
class SRD(TappedObjective):
  """A linear projection of the student's embedding reproduces the teacher's, both batch-normalised (SRD).

  Use it on the last embedding, as the simplest method that competes with the methods on many layers. Each replica sees
  its own share of the global batch.
  Source: Miles, Mikolajczyk 2024, arXiv:2303.11098; see `tfkd.losses.log_power_distance`. Normalised without scale and
  offset, with PyTorch's epsilon of 1e-5, where the authors' code has 1e-4.

  Args:
    teacher_layer, student_layer: see `TappedObjective`; sequences and maps are averaged, dimensions may
      differ.
    power: number >= 1.
    **options: weight, output and name, see `Objective`.
  Inputs: pair of lists of float [batch, d], sequences or maps. Output: float32 scalar.
  Example: tfkd.objectives.SRD("flatten", "flatten")
  """

  default_weight = 2.0  # The authors' ImageNet code, which adds soft targets at T = 1.
  embeds = True
  relational = True

  def __init__(
    self, teacher_layer: str | Sequence[str], student_layer: str | Sequence[str], *, power: float = 4.0, **options: Any
  ):
    super().__init__(teacher_layer, student_layer, connector="project", alignment=None, **options)
    if power < 1:
      raise ValueError(f"power must be at least 1; got {power}.")
    self.power = power
    self.teacher_normalizations, self.student_normalizations = [], []

  def build_pair(self, teacher: tf.TensorShape, student: tf.TensorShape) -> None:
    super().build_pair(teacher, student)
    for normalizations in (self.teacher_normalizations, self.student_normalizations):
      options = {**connectors.PYTORCH_NORMALIZATION, "center": False, "scale": False, "dtype": "float32"}
      normalizations.append(keras.layers.BatchNormalization(**options))
      normalizations[-1].build([teacher[0], teacher[-1]])

  def call(self, inputs: tuple, training: bool | None = None, sample_weight: tf.Tensor | None = None) -> tf.Tensor:
    normalizations = zip(self.teacher_normalizations, self.student_normalizations, strict=True)
    pairs = self.aligned(inputs, sample_weight)
    total = []
    for (teacher, student), (of_teacher, of_student) in zip(pairs, normalizations, strict=True):
      total.append(losses.log_power_distance(of_teacher(teacher), of_student(student), power=self.power))
    return tf.add_n(total)
