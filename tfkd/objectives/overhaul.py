"""Feature distillation overhaul: partial distance to a teacher's feature before its ReLU (Heo et al. 2019)."""

import functools
from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfkd import losses
from tfkd.objectives.tapped import TappedObjective


@keras.utils.register_keras_serializable(package="tfkd")
class OFD(TappedObjective):
  """The student reproduces the teacher's positive responses, and stays below its negative ones (OFD).

  Use it on the last features before ReLU of every stage, early to late: the outputs of batch normalisation. Earlier
  pairs count half as much as the next. The margin, the mean of the teacher's negative responses in each channel, is
  measured during training, so it works with any normalisation, or none.
  Source: Heo et al. 2019, arXiv:1904.01866; see `tfkd.losses.partial_distance`, a sum over the elements of an example.

  Args:
    teacher_layer, student_layer, connector, alignment: see `TappedObjective`.
    **options: weight, output and name, see `Objective`.
  Inputs: pair of lists of float [batch, ..., channels] before ReLU. Output: float32 [batch].
  Example: tfkd.objectives.OFD(["bn2", "bn4", "bn6"], ["bn2", "bn4", "bn6"])
  """

  default_weight = 1e-3  # The authors' code for CIFAR-100.
  positions = "sum"

  def __init__(
    self,
    teacher_layer: str | Sequence[str],
    student_layer: str | Sequence[str],
    *,
    connector: str | keras.layers.Layer | None = "project_bn",
    alignment: str | None = None,
    **options: Any,
  ):
    super().__init__(teacher_layer, student_layer, connector=connector, alignment=alignment, **options)
    self.negatives = []

  def build_pair(self, teacher: tf.TensorShape, student: tf.TensorShape) -> None:
    super().build_pair(teacher, student)
    # Sum and number of the negative responses seen, over all replicas.
    self.negatives.append(
      self.add_weight(
        f"negatives{len(self.negatives)}",
        (2, teacher[-1]),
        initializer="zeros",
        trainable=False,
        synchronization=tf.VariableSynchronization.ON_READ,
        aggregation=tf.VariableAggregation.SUM,
      )
    )

  def call(self, inputs: tuple, training: bool | None = None, sample_weight: tf.Tensor | None = None) -> tf.Tensor:
    total: Any = 0.0
    pairs = self.aligned(inputs, sample_weight)
    for i, ((teacher, student), negatives) in enumerate(zip(pairs, self.negatives, strict=True)):
      if training:
        negatives.assign_add(_negatives(teacher))
      # Each replica's own estimate converges to the same value.
      responses, count = tf.unstack(tf.convert_to_tensor(negatives))
      margin = tf.math.divide_no_nan(responses, count)
      distance = functools.partial(losses.partial_distance, margin=margin)
      total += 2.0 ** (i + 1 - len(self.negatives)) * self.weighted(distance, teacher, student, sample_weight)
    return total


def _negatives(feature: tf.Tensor) -> tf.Tensor:
  """Sum and number of the negative responses of each channel: float32 [2, channels]."""
  axes = list(range(feature.shape.rank - 1))
  is_negative = tf.cast(feature < 0, tf.float32)
  return tf.stack([tf.reduce_sum(feature * is_negative, axes), tf.reduce_sum(is_negative, axes)])
