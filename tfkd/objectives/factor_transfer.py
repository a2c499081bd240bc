"""Factor transfer: paraphrased teacher features, translated by the student (Kim, Park, Kwak 2018)."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfkd import losses
from tfkd.objectives.tapped import TappedObjective

layers = keras.layers
_CONVOLUTIONS = {3: layers.Conv1D, 4: layers.Conv2D}  # By the number of axes.


@keras.utils.register_keras_serializable(package="tfkd")
class FactorTransfer(TappedObjective):
  """The student's translator reproduces the factors that a paraphraser extracts from the teacher's feature (FT).

  Use it on the last map of networks that differ much. The paraphraser is an autoencoder of the teacher's feature. Its
  squared error is added to the loss and trains only the paraphraser, in the same steps; the paper trains it beforehand.
  Source: Kim, Park, Kwak 2018, arXiv:1802.04977; see `tfkd.losses.factor_transfer`. Three 3x3 convolutions each, of
  size 3 for sequences, with leaky ReLU after each.

  Args:
    teacher_layer, student_layer, alignment: see `TappedObjective`; both features are maps, or both sequences.
    rate: number in (0, 1], channels of a factor over channels of the teacher's feature.
    **options: weight, output and name, see `Objective`.
  Inputs: pair of lists of float [batch, height, width, channels] or [batch, time, channels]. Output: float32 [batch].
  Example: tfkd.objectives.FactorTransfer("relu6", "relu6")
  """

  acronyms = ("FT",)
  default_weight = 500.0  # The authors' code for CIFAR-10.
  must_agree = "positions"

  def __init__(
    self,
    teacher_layer: str | Sequence[str],
    student_layer: str | Sequence[str],
    *,
    alignment: str | None = None,
    rate: float = 0.5,
    **options: Any,
  ):
    super().__init__(teacher_layer, student_layer, connector=None, alignment=alignment, **options)
    if not 0 < rate <= 1:
      raise ValueError(f"rate must be in (0, 1]; got {rate}.")
    self.rate = rate
    self.paraphrasers, self.restorers, self.translators = [], [], []

  def build_pair(self, teacher: tf.TensorShape, student: tf.TensorShape) -> None:
    super().build_pair(teacher, student)
    of_teacher: Any = teacher[-1]
    of_student: Any = student[-1]
    factor = max(1, round(self.rate * of_teacher))
    for made, shape, channels in (
      (self.paraphrasers, teacher, (of_teacher, factor, factor)),
      (self.restorers, [*teacher[:-1], factor], (factor, of_teacher, of_teacher)),
      (self.translators, student, (of_student, factor, factor)),
    ):
      made.append(_convolutions(channels, _CONVOLUTIONS[teacher.rank]))
      made[-1].build(shape)

  def check_shape(self, shape: tf.TensorShape, owner: str) -> None:
    super().check_shape(shape, owner)
    if shape.rank not in _CONVOLUTIONS:
      raise ValueError(f"the loss convolves sequences or maps, of 3 or 4 axes; got {shape.rank}: tap another layer.")

  def call(self, inputs: tuple, training: bool | None = None, sample_weight: tf.Tensor | None = None) -> tf.Tensor:
    total = []
    for (teacher, student), paraphraser, restorer, translator in zip(
      self.aligned(inputs, sample_weight), self.paraphrasers, self.restorers, self.translators, strict=True
    ):
      factor = self._counted(paraphraser(teacher), sample_weight)
      total.append(losses.hint(teacher, self._counted(restorer(factor), sample_weight)))
      translated = self._counted(translator(student), sample_weight)
      total.append(losses.factor_transfer(tf.stop_gradient(factor), translated))
    return tf.add_n(total)

  def _counted(self, feature: tf.Tensor, sample_weight: tf.Tensor | None) -> tf.Tensor:
    """Zeros at positions of weight zero, which convolutions map to their biases and their neighbours' values."""
    return feature if sample_weight is None else self.without_dropped(feature, sample_weight)


def _convolutions(channels: Sequence[int], convolution: type[keras.layers.Layer]) -> keras.Sequential:
  made = [convolution(n, 3, padding="same", dtype="float32") for n in channels]
  return keras.Sequential([step for layer in made for step in (layer, layers.LeakyReLU(0.1, dtype="float32"))])
