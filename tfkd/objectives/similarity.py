"""Similarity-preserving distillation: which examples of a batch have similar activations (Tung, Mori 2019)."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfkd import losses
from tfkd.objectives.tapped import TappedObjective


@keras.utils.register_keras_serializable(package="tfkd")
class SimilarityPreserving(TappedObjective):
  """Examples with similar teacher activations have similar student activations (SP).

  Use it on the last map, whatever the two networks' shapes. Each replica compares its own share of the global batch.
  Source: Tung, Mori 2019, arXiv:1907.09682; see `tfkd.losses.similarity_preserving`.

  Args:
    teacher_layer, student_layer: see `TappedObjective`; shapes may differ.
    **options: weight, output and name, see `Objective`.
  Inputs: pair of lists of float [batch, ...]. Output: float32 scalar, dimensionless.
  Example: tfkd.objectives.SimilarityPreserving("relu6", "relu6")
  """

  acronyms = ("SP", "SPKD")
  default_weight = 3000.0  # The paper's.
  must_agree = "batch"
  fixed_channels = False
  relational = True

  def __init__(self, teacher_layer: str | Sequence[str], student_layer: str | Sequence[str], **options: Any):
    super().__init__(teacher_layer, student_layer, connector=None, alignment=None, **options)

  def distance(self, teacher: tf.Tensor, student: tf.Tensor) -> tf.Tensor:
    return losses.similarity_preserving(teacher, student)
