"""Any Keras loss between the outputs, or between the features, of teacher and student."""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfkd import losses
from tfkd.losses._keras_loss import per_element
from tfkd.objectives.base import Objective
from tfkd.objectives.tapped import TappedObjective


@keras.utils.register_keras_serializable(package="tfkd")
class MatchOutputs(Objective):
  """The student's output is close to the teacher's by a Keras loss.

  Use it for regression and other outputs that are no class scores: "huber" or "mae" if the teacher has outliers, since
  their gradient is bounded. For logits it is Ba and Caruana's regression on logits.
  Source: Ba, Caruana 2014, arXiv:1312.6184, eq. 1, for "mse"; see `tfkd.losses.keras_loss`.

  Args:
    loss: name of a Keras loss, a `tf_keras.losses.Loss`, or a function of (teacher, student) to [batch, ...].
    **options: weight, output and name, see `Objective`.
  Inputs: pair of float [batch, ..., values] or [batch]. Output: float32 [batch, ...].
  Example: tfkd.objectives.MatchOutputs("huber", output="price")

  Raises:
    ValueError: loss is unknown or reads labels or probabilities, or the outputs have different shapes.
  """

  def __init__(self, loss: str | Callable = "mse", **options: Any):
    super().__init__(**options)
    self.loss = loss

  def __setattr__(self, name: str, value: Any) -> None:
    if name == "loss":
      per_element(value)
    super().__setattr__(name, value)

  def check_shapes(self, teacher: tf.TensorShape | None, student: tf.TensorShape | None) -> None:
    check_same_outputs(teacher, student, self.name)

  def call(self, inputs: tuple) -> tf.Tensor:
    teacher, student = inputs
    check_same_outputs(teacher.shape, student.shape, self.name)
    return losses.keras_loss(teacher, student, loss=self.loss)


@keras.utils.register_keras_serializable(package="tfkd")
class MatchFeatures(TappedObjective):
  """The student's feature is close to the teacher's by a Keras loss, at each position.

  Use it for hidden states: "cosine_similarity" if only directions count, as in DistilBERT.
  Source: Sanh et al. 2019, arXiv:1910.01108, section 2, for "cosine_similarity"; see `tfkd.losses.keras_loss`.

  Args:
    teacher_layer, student_layer, connector, alignment: see `TappedObjective`.
    loss: name of a Keras loss, a `tf_keras.losses.Loss`, or a function of (teacher, student) to [batch, ...].
    **options: weight, output and name, see `Objective`.
  Inputs: pair of lists of float [batch, ..., channels]. Output: float32 [batch], the mean over positions.
  Example: tfkd.objectives.MatchFeatures("block11", "block5")

  Raises:
    ValueError: loss is unknown or reads labels or probabilities.
  """

  positions = "mean"

  def __init__(
    self,
    teacher_layer: str | Sequence[str],
    student_layer: str | Sequence[str],
    *,
    loss: str | Callable = "cosine_similarity",
    connector: str | keras.layers.Layer | None = None,
    alignment: str | None = None,
    **options: Any,
  ):
    super().__init__(teacher_layer, student_layer, connector=connector, alignment=alignment, **options)
    self.loss = loss

  def __setattr__(self, name: str, value: Any) -> None:
    if name == "loss":
      per_element(value)
    super().__setattr__(name, value)

  def distance(self, teacher: tf.Tensor, student: tf.Tensor) -> tf.Tensor:
    values = losses.keras_loss(teacher, student, loss=self.loss)
    return tf.reduce_mean(values, axis=list(range(1, values.shape.rank)))


def check_same_outputs(teacher: tf.TensorShape | None, student: tf.TensorShape | None, name: str) -> None:
  """Raises ValueError unless static shapes of outputs, None if unknown, can be equal."""
  if teacher is None or student is None or teacher.is_compatible_with(student):
    return
  raise ValueError(
    f"objective '{name}' compares outputs value by value, and the teacher's have shape {teacher}, the student's "
    f"{student}: give both models outputs of one shape."
  )
