"""Simple recipe distillation: a projection, two normalisations, a logarithm (Miles, Mikolajczyk 2024)."""

import tensorflow as tf
import tf_keras as keras

from tfkd import losses
from tfkd.features import connectors
from tfkd.objectives.tapped import TappedObjective


@keras.utils.register_keras_serializable(package="tfkd")
class SRD(TappedObjective):
  """A linear projection of the student's embedding reproduces the teacher's, both batch-normalised (SRD).

  Use it on the last embedding, for the least machinery that competes with the methods on many layers. It sees the batch
  of its own device.
  Source: Miles, Mikolajczyk 2024, arXiv:2303.11098; see `tfkd.losses.log_power_distance`. Normalised without scale and
  offset, with PyTorch's epsilon of 1e-5, where the authors' code has 1e-4. The default weight is that of their ImageNet
  code, which adds soft targets at T = 1.

  Args:
    teacher_layer, student_layer, weight, name: see `TappedObjective`; maps are averaged, dimensions may differ.
    power: number >= 1.
  Inputs: pair of lists of float [batch, d] or maps. Output: float32 scalar.
  Example: tfkd.objectives.SRD("flatten", "flatten")
  """

  embeds = True
  relational = True
  fixed_arguments = ("connector", "alignment")

  def __init__(self, teacher_layer, student_layer, weight=2.0, power=4.0, name=None, **kwargs):
    super().__init__(teacher_layer, student_layer, weight, "linear", None, name, **kwargs)
    if power < 1:
      raise ValueError(f"power must be at least 1; got {power}.")
    self.power = power
    self.teacher_normalizations, self.student_normalizations = [], []

  def build_pair(self, teacher, student):
    super().build_pair(teacher, student)
    for normalizations in (self.teacher_normalizations, self.student_normalizations):
      options = {**connectors.PYTORCH_NORMALIZATION, "center": False, "scale": False, "dtype": "float32"}
      normalizations.append(keras.layers.BatchNormalization(**options))
      normalizations[-1].build([teacher[0], teacher[-1]])

  def call(self, inputs, training=None, sample_weight=None):
    normalizations = zip(self.teacher_normalizations, self.student_normalizations, strict=True)
    pairs = self.aligned(inputs, sample_weight)
    total = []
    for (teacher, student), (of_teacher, of_student) in zip(pairs, normalizations, strict=True):
      total.append(losses.log_power_distance(of_teacher(teacher), of_student(student), power=self.power))
    return tf.add_n(total)

  def get_config(self):
    return {**super().get_config(), "power": self.power}
