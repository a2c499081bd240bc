"""Flow of solution procedure: how a feature follows from an earlier one (Yim et al. 2017)."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfkd import losses
from tfkd.features import connectors
from tfkd.objectives.tapped import TappedObjective


@keras.utils.register_keras_serializable(package="tfkd")
class FlowOfSolutionProcedure(TappedObjective):
  """The Gram matrices between consecutive layers of the student agree with the teacher's (FSP).

  Use it as a first stage, on the first and last layer of each stage of two networks of one family. Each layer is
  compared with the next of the list; the larger of two features of one network is averaged to the smaller's size.
  Source: Yim et al. 2017, CVPR; see `tfkd.losses.flow_of_solution_procedure`.

  Args:
    teacher_layer, student_layer: lists of at least two layer names, early to late.
    connector: see `TappedObjective`; the channels must agree, after any connector.
    **options: weight, output and name, see `Objective`.
  Inputs: pair of lists of float [batch, ..., channels], sequences or maps. Output: float32 [batch].
  Example: tfkd.objectives.FlowOfSolutionProcedure(["relu0", "relu2"], ["relu0", "relu2"], connector="project")
  """

  acronyms = ("FSP",)
  default_weight = 50.0  # RepDistiller's, for the same mean over the matrix.
  must_agree = "channels"

  def __init__(
    self,
    teacher_layer: Sequence[str],
    student_layer: Sequence[str],
    *,
    connector: str | keras.layers.Layer | None = None,
    **options: Any,
  ):
    super().__init__(teacher_layer, student_layer, connector=connector, alignment=None, **options)
    if len(self.teacher_layers) < 2:
      raise ValueError(f"objective '{self.name}' needs two layers of each model or more; got {teacher_layer}.")

  def build(self, input_shape: Any) -> None:
    super().build(input_shape)
    for shapes, names in zip(input_shape[:2], (self.teacher_layers, self.student_layers), strict=True):
      for i, (earlier, later) in enumerate(zip(shapes, shapes[1:], strict=False)):
        if earlier.rank != later.rank:
          raise ValueError(
            f"objective '{self.name}' compares consecutive layers position by position; got '{names[i]}' "
            f"{tuple(earlier)} and '{names[i + 1]}' {tuple(later)}: tap sequences only or maps only."
          )
        try:
          connectors.aligned_size(earlier, later, "average_pool")
        except ValueError as error:
          raise ValueError(f"objective '{self.name}' on '{names[i]}' and '{names[i + 1]}': {error}") from error

  def call(self, inputs: tuple, training: bool | None = None, sample_weight: tf.Tensor | None = None) -> tf.Tensor:
    pairs = self.aligned(inputs, sample_weight)
    flows = []
    for earlier, later in zip(pairs, pairs[1:], strict=False):
      teacher, student = (_same_size(*features) for features in zip(earlier, later, strict=True))
      flows.append(losses.flow_of_solution_procedure(teacher, student))
    return tf.add_n(flows)


def _same_size(first: tf.Tensor, second: tf.Tensor) -> list[tf.Tensor]:
  size = connectors.aligned_size(first.shape, second.shape, "average_pool")
  return [connectors.align(feature, size, "average_pool") for feature in (first, second)]
