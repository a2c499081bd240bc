"""Singular vectors of features, and how they follow from those of an earlier layer (Lee, Kim, Song 2018)."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfkd import losses
from tfkd.objectives.tapped import TappedObjective


@keras.utils.register_keras_serializable(package="tfkd")
class KDSVD(TappedObjective):
  """The first singular vectors of consecutive layers of the student relate as the teacher's do (KDSVD).

  Use it as `FlowOfSolutionProcedure`, on the ends of the stages of two networks; positions may differ. Each layer is
  compared with the next of the list. Each example's features are decomposed: a step's time grows with the cube of their
  channels or positions, whichever are fewer.
  Source: Lee, Kim, Song 2018, ECCV; see `tfkd.losses.singular_vectors`.

  Args:
    teacher_layer, student_layer: lists of at least two layer names, early to late.
    connector: see `TappedObjective`; the channels must agree, after any connector.
    rank: int >= 1, singular vectors of each feature.
    **options: weight, output and name, see `Objective`.
  Inputs: pair of lists of float [batch, ..., channels], sequences or maps. Output: float32 [batch], dimensionless.
  Example: tfkd.objectives.KDSVD(["relu2", "relu4", "relu6"], ["relu2", "relu4", "relu6"], connector="project")
  """

  # mdistiller's, which decomposes [channels * height, width]; RepDistiller, the source of this loss, has no default.
  default_weight = 1.0
  must_agree = "channels"

  def __init__(
    self,
    teacher_layer: Sequence[str],
    student_layer: Sequence[str],
    *,
    connector: str | keras.layers.Layer | None = None,
    rank: int = 1,
    **options: Any,
  ):
    super().__init__(teacher_layer, student_layer, connector=connector, alignment=None, **options)
    if len(self.teacher_layers) < 2:
      raise ValueError(f"objective '{self.name}' needs two layers of each model or more; got {teacher_layer}.")
    if rank < 1:
      raise ValueError(f"rank must be at least 1; got {rank}.")
    self.rank = rank

  def build_pair(self, teacher: tf.TensorShape, student: tf.TensorShape) -> None:
    super().build_pair(teacher, student)
    for shape in (teacher, student):
      positions = shape[1:-1].num_elements()
      channels: Any = teacher[-1]
      if positions is not None and self.rank > min(positions, channels):
        raise ValueError(f"rank {self.rank} is more than {tuple(shape)} has positions or channels: lower it.")

  def call(self, inputs: tuple, training: bool | None = None, sample_weight: tf.Tensor | None = None) -> tf.Tensor:
    pairs = self.aligned(inputs, sample_weight)
    return tf.add_n(
      [
        losses.singular_vectors(*zip(earlier, later, strict=True), rank=self.rank)
        for earlier, later in zip(pairs, pairs[1:], strict=False)
      ]
    )
