"""Factor transfer: paraphrased teacher features, translated by the student (Kim, Park, Kwak 2018)."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfkd import losses
from tfkd.objectives.tapped import TappedObjective

layers = keras.layers


@keras.utils.register_keras_serializable(package="tfkd")
class FactorTransfer(TappedObjective):
  """The student's translator reproduces the factors that a paraphraser extracts from the teacher's feature (FT).

  Use it on the last map of networks that differ much. The paraphraser is an autoencoder of the teacher's feature. Its
  squared error is added to the loss and trains only the paraphraser, in the same steps; the paper trains it beforehand.
  Source: Kim, Park, Kwak 2018, arXiv:1802.04977; see `tfkd.losses.factor_transfer`. Three 3x3 convolutions each, with
  leaky ReLU after each.

  Args:
    teacher_layer, student_layer, alignment: see `TappedObjective`; both features are maps.
    rate: number in (0, 1], channels of a factor over channels of the teacher's feature.
    **options: weight, output and name, see `Objective`.
  Inputs: pair of lists of float [batch, height, width, channels]. Output: float32 [batch].
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
    factor = max(1, round(self.rate * teacher[3]))
    for made, shape, channels in (
      (self.paraphrasers, teacher, (teacher[3], factor, factor)),
      (self.restorers, [*teacher[:3], factor], (factor, teacher[3], teacher[3])),
      (self.translators, student, (student[3], factor, factor)),
    ):
      made.append(_convolutions(channels))
      made[-1].build(shape)

  def call(self, inputs: tuple, training: bool | None = None, sample_weight: tf.Tensor | None = None) -> tf.Tensor:
    total = []
    for (teacher, student), paraphraser, restorer, translator in zip(
      self.aligned(inputs, sample_weight), self.paraphrasers, self.restorers, self.translators, strict=True
    ):
      factor = paraphraser(teacher)
      total.append(losses.hint(teacher, restorer(factor)))
      total.append(losses.factor_transfer(tf.stop_gradient(factor), translator(student)))
    return tf.add_n(total)


def _convolutions(channels: Sequence[int | None]) -> keras.Sequential:
  made = [layers.Conv2D(n, 3, padding="same", dtype="float32") for n in channels]
  return keras.Sequential([step for layer in made for step in (layer, layers.LeakyReLU(0.1, dtype="float32"))])
