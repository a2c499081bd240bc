"""Inter-channel correlation: which channels of a feature respond together (Liu et al. 2021)."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfkd import losses
from tfkd.objectives.tapped import TappedObjective


@keras.utils.register_keras_serializable(package="tfkd")
class ICKD(TappedObjective):
  """The student's channels, projected to the teacher's, respond together as the teacher's do (ICKD).

  Use it on the last map. Positions are summed over: their numbers may differ.
  Source: Liu et al. 2021, arXiv:2202.03680; see `tfkd.losses.inter_channel_correlation`.

  Args:
    teacher_layer, student_layer, connector: see `TappedObjective`.
    **options: weight, output and name, see `Objective`.
  Inputs: pair of lists of float [batch, ..., channels], sequences or maps. Output: float32 [batch], dimensionless.
  Example: tfkd.objectives.ICKD("relu6", "relu6")
  """

  default_weight = 2.5  # The authors' script for CIFAR-100.
  must_agree = "channels"

  def __init__(
    self,
    teacher_layer: str | Sequence[str],
    student_layer: str | Sequence[str],
    *,
    connector: str | keras.layers.Layer | None = "project_bn",
    **options: Any,
  ):
    super().__init__(teacher_layer, student_layer, connector=connector, alignment=None, **options)

  def distance(self, teacher: tf.Tensor, student: tf.Tensor) -> tf.Tensor:
    return losses.inter_channel_correlation(teacher, student)
