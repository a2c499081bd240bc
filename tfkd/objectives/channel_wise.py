"""Channel-wise distillation of dense predictions: where each channel responds (Shu et al. 2021)."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfkd import losses
from tfkd.objectives.logits import check_is_temperature
from tfkd.objectives.tapped import TappedObjective, check_compares_positions
from tfkd.ops.element_weights import at_positions


@keras.utils.register_keras_serializable(package="tfkd")
class ChannelWise(TappedObjective):
  """Each of the student's channels responds at the positions where the teacher's does (CWD).

  Use it for dense predictions, such as segmentation: on the layer of the logits, whose channels are the classes, or on
  features. It compares the positions of one channel, where `SoftTargets` compares the classes of one position.
  Source: Shu et al. 2021, arXiv:2011.13256; see `tfkd.losses.channel_wise_kl`. Keras' masks and `sample_weight` exclude
  positions of weight zero from the distributions.

  Args:
    teacher_layer, student_layer, connector, alignment: see `TappedObjective`.
    temperature: positive finite number, dimensionless; the paper's is 4.
    **options: weight, output and name, see `Objective`. The paper's weight of features is 50.
  Inputs: pair of lists of float [batch, ..., channels], sequences or maps. Output: float32 [batch], in nats.
  Example: tfkd.objectives.ChannelWise("logits", "logits")

  Raises:
    TypeError: temperature is no number.
    ValueError: temperature is not positive and finite, or the features are vectors.
  """

  acronyms = ("CWD",)
  default_weight = 3.0  # The paper's, of logits.

  def __init__(
    self,
    teacher_layer: str | Sequence[str],
    student_layer: str | Sequence[str],
    temperature: float | tf.Variable = 4.0,
    *,
    connector: str | keras.layers.Layer | None = None,
    alignment: str | None = None,
    **options: Any,
  ):
    super().__init__(teacher_layer, student_layer, connector=connector, alignment=alignment, **options)
    self.temperature = temperature

  def __setattr__(self, name: str, value: Any) -> None:
    if name == "temperature":
      check_is_temperature(value)
    super().__setattr__(name, value)

  def check_shape(self, shape: tf.TensorShape, owner: str) -> None:
    super().check_shape(shape, owner)
    check_compares_positions(shape, owner)

  def call(self, inputs: tuple, training: bool | None = None, sample_weight: tf.Tensor | None = None) -> tf.Tensor:
    total = []
    for teacher, student in self.aligned(inputs, sample_weight):
      weights = None if sample_weight is None else at_positions(sample_weight, student)
      total.append(losses.channel_wise_kl(teacher, student, self.temperature, weights))
    return tf.add_n(total)
