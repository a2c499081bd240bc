"""Probabilistic knowledge transfer: the batch as a distribution over neighbours (Passalis, Tefas 2018)."""

import tensorflow as tf
import tf_keras as keras

from tfkd import losses
from tfkd.objectives.tapped import EmbeddingObjective


@keras.utils.register_keras_serializable(package="tfkd")
class ProbabilisticTransfer(EmbeddingObjective):
  """Examples have the same neighbours in both embeddings, as distributions over the batch (PKT).

  Use it on the last embedding, whatever the two networks' dimensions.
  Source: Passalis, Tefas 2018, arXiv:1803.10837; see `tfkd.losses.probabilistic_transfer`.

  Args:
    teacher_layer, student_layer, connector: see `EmbeddingObjective`.
    **options: weight, output and name, see `Objective`.
  Inputs: pair of lists of float [batch, d], sequences or maps. Output: float32 scalar, in nats.
  Example: tfkd.objectives.ProbabilisticTransfer("flatten", "flatten")
  """

  acronyms = ("PKT",)
  default_weight = 30000.0  # RepDistiller's; large because the loss is a mean over all pairs.

  def distance(self, teacher: tf.Tensor, student: tf.Tensor) -> tf.Tensor:
    return losses.probabilistic_transfer(teacher, student)
