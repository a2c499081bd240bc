"""Neuron selectivity transfer: the distribution of channels' responses (Huang, Wang 2017)."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfkd import losses
from tfkd.objectives.tapped import TappedObjective


@keras.utils.register_keras_serializable(package="tfkd")
class NeuronSelectivity(TappedObjective):
  """The student's channels, as a set, respond like the teacher's (NST).

  Use it on late layers of two networks of one family; it needs no connector, whatever the widths.
  Source: Huang, Wang 2017, arXiv:1707.01219; see `tfkd.losses.neuron_selectivity`.

  Args:
    teacher_layer, student_layer, alignment: see `TappedObjective`; channels may differ.
    **options: weight, output and name, see `Objective`.
  Inputs: pair of lists of float [batch, ..., channels], sequences or maps. Output: float32 [batch], dimensionless.
  Example: tfkd.objectives.NeuronSelectivity("relu6", "relu6")
  """

  acronyms = ("NST",)
  default_weight = 50.0  # RepDistiller's.
  must_agree = "positions"

  def __init__(
    self,
    teacher_layer: str | Sequence[str],
    student_layer: str | Sequence[str],
    *,
    alignment: str | None = None,
    **options: Any,
  ):
    super().__init__(teacher_layer, student_layer, connector=None, alignment=alignment, **options)

  def distance(self, teacher: tf.Tensor, student: tf.Tensor) -> tf.Tensor:
    return losses.neuron_selectivity(teacher, student)
