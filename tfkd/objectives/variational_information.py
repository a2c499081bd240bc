"""Variational information distillation: a Gaussian around the student's prediction (Ahn et al. 2019)."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfkd import losses
from tfkd.objectives.tapped import TappedObjective

_MINIMUM = 1e-5


@keras.utils.register_keras_serializable(package="tfkd")
class VariationalInformation(TappedObjective):
  """The student predicts the teacher's feature, with a learned variance for each channel (VID).

  Use it in place of `Hint` if the student cannot reproduce some of the teacher's channels: their variance grows, and
  their weight in the loss falls. The value may be negative.
  Source: Ahn et al. 2019, arXiv:1904.05835; see `tfkd.losses.variational_information`.

  Args:
    teacher_layer, student_layer, connector, alignment: see `TappedObjective`; the connector gives the mean, three 1x1
      convolutions with ReLU in the authors' code.
    initial_variance: positive number, in squared units of the teacher's feature.
    **options: weight, output and name, see `Objective`.
  Inputs: pair of lists of float [batch, ..., channels]. Output: float32 [batch].
  Example: tfkd.objectives.VariationalInformation("relu4", "relu4")
  """

  acronyms = ("VID",)
  positions = "mean"

  def __init__(
    self,
    teacher_layer: str | Sequence[str],
    student_layer: str | Sequence[str],
    *,
    connector: str | keras.layers.Layer | None = "project",
    alignment: str | None = None,
    initial_variance: float = 5.0,
    **options: Any,
  ):
    super().__init__(teacher_layer, student_layer, connector=connector, alignment=alignment, **options)
    if not initial_variance > _MINIMUM:
      raise ValueError(f"initial_variance must be above {_MINIMUM}; got {initial_variance}.")
    self.initial_variance = initial_variance
    self.variances = []

  def build_pair(self, teacher: tf.TensorShape, student: tf.TensorShape) -> None:
    super().build_pair(teacher, student)
    # softplus(rho) + 1e-5 is the variance.
    rho = math.log(math.expm1(self.initial_variance - _MINIMUM))
    name = f"rho{len(self.variances)}"
    self.variances.append(self.add_weight(name, (teacher[-1],), initializer=keras.initializers.Constant(rho)))

  def call(self, inputs: tuple, training: bool | None = None, sample_weight: tf.Tensor | None = None) -> tf.Tensor:
    total = []
    for pair, rho in zip(self.aligned(inputs, sample_weight), self.variances, strict=True):
      distance = functools.partial(losses.variational_information, variance=tf.nn.softplus(rho) + _MINIMUM)
      total.append(self.weighted(distance, *pair, sample_weight))
    return tf.add_n(total)
