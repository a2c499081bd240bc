"""Probabilistic knowledge transfer: the batch as a distribution over neighbours (Passalis, Tefas 2018)."""

import tf_keras as keras

from tfkd import losses
from tfkd.objectives.tapped import EmbeddingObjective


@keras.utils.register_keras_serializable(package="tfkd")
class ProbabilisticTransfer(EmbeddingObjective):
  """Examples have the neighbours that they have in the teacher's embedding (PKT).

  Use it on the last embedding, whatever the two networks' dimensions.
  Source: Passalis, Tefas 2018, arXiv:1803.10837; see `tfkd.losses.probabilistic_transfer`, a mean over all pairs,
  whence the large weight, which is RepDistiller's.

  Args:
    teacher_layer, student_layer, weight, connector, name: see `EmbeddingObjective`.
  Inputs: pair of lists of float [batch, d] or maps. Output: float32 scalar, in nats.
  Example: tfkd.objectives.ProbabilisticTransfer("flatten", "flatten")
  """

  def __init__(self, teacher_layer, student_layer, weight=30000.0, connector=None, name=None, **kwargs):
    super().__init__(teacher_layer, student_layer, weight, connector, name, **kwargs)

  def distance(self, teacher, student):
    return losses.probabilistic_transfer(teacher, student)
