"""Activation boundaries: which neurons fire, not how strongly (Heo et al. 2019)."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfkd import losses
from tfkd.objectives.tapped import TappedObjective


@keras.utils.register_keras_serializable(package="tfkd")
class ActivationBoundary(TappedObjective):
  """The student's neurons fire where the teacher's do (AB).

  Use it as a first stage, on features before their ReLU: the outputs of batch normalisation.
  Source: Heo et al. 2019, arXiv:1811.03233; see `tfkd.losses.activation_boundary`, a sum over the elements of an
  example.

  Args:
    teacher_layer, student_layer, connector, alignment: see `TappedObjective`.
    margin: positive number, how far beyond zero a neuron should be.
    **options: weight, output and name, see `Objective`.
  Inputs: pair of lists of float [batch, ...] before ReLU. Output: float32 [batch].
  Example: tfkd.objectives.ActivationBoundary("bn6", "bn6")
  """

  acronyms = ("AB",)
  default_weight = 3e-3  # The authors' code, which halves it for each earlier layer.
  positions = "sum"

  def __init__(
    self,
    teacher_layer: str | Sequence[str],
    student_layer: str | Sequence[str],
    *,
    connector: str | keras.layers.Layer | None = "project_bn",
    alignment: str | None = None,
    margin: float = 1.0,
    **options: Any,
  ):
    super().__init__(teacher_layer, student_layer, connector=connector, alignment=alignment, **options)
    if not margin > 0:
      raise ValueError(f"margin must be positive; got {margin}.")
    self.margin = margin

  def distance(self, teacher: tf.Tensor, student: tf.Tensor) -> tf.Tensor:
    return losses.activation_boundary(teacher, student, margin=self.margin)
