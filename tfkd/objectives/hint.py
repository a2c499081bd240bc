"""Distances between features position by position: FitNets' hint and related losses."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfkd import losses
from tfkd.objectives.tapped import TappedObjective


@keras.utils.register_keras_serializable(package="tfkd")
class Hint(TappedObjective):
  """The student's guided layer reproduces the teacher's hint layer through a connector (FitNets).

  Use it if the student is thinner or deeper than the teacher: together with `SoftTargets`, or alone in a first stage
  with `hard_loss_weight=0`, as in the paper. The connector is FitNets' regressor.
  Source: Romero et al. 2015, arXiv:1412.6550; see `tfkd.losses.hint`.

  Args:
    teacher_layer, student_layer, connector, alignment: see `TappedObjective`.
    **options: weight, output and name, see `Objective`.
  Inputs: pair of lists of float [batch, ...]. Output: float32 [batch].
  Example: tfkd.objectives.Hint("relu4", "relu4", connector="project")
  """

  acronyms = ("FitNet", "FitNets")
  default_weight = 100.0  # RepDistiller's.
  positions = "mean"

  def distance(self, teacher: tf.Tensor, student: tf.Tensor) -> tf.Tensor:
    return losses.hint(teacher, student)


@keras.utils.register_keras_serializable(package="tfkd")
class Euclidean(TappedObjective):
  """The Euclidean distance between two features is small: `Hint` without the square.

  Use it if single examples with large errors should not dominate the step. See `tfkd.losses.euclidean`.

  Args:
    teacher_layer, student_layer, connector, alignment: see `TappedObjective`.
    **options: weight, output and name, see `Objective`.
  Inputs: pair of lists of float [batch, ...]. Output: float32 [batch].
  Example: tfkd.objectives.Euclidean("relu4", "relu4", connector="project", weight=0.01)
  """

  def distance(self, teacher: tf.Tensor, student: tf.Tensor) -> tf.Tensor:
    return losses.euclidean(teacher, student)


@keras.utils.register_keras_serializable(package="tfkd")
class NormalizedFeatureMatching(TappedObjective):
  """The channel vectors of two features have the same direction at each position.

  Use it if the magnitudes of the two networks' features are unrelated. See `tfkd.losses.normalized_feature_matching`.

  Args:
    teacher_layer, student_layer, connector, alignment: see `TappedObjective`.
    epsilon: positive lower bound of a vector's length.
    **options: weight, output and name, see `Objective`.
  Inputs: pair of lists of float [batch, ..., channels]. Output: float32 [batch], dimensionless.
  Example: tfkd.objectives.NormalizedFeatureMatching(["relu2", "relu4"], ["relu2", "relu4"], connector="project")
  """

  default_weight = 100.0  # As `Hint`.
  positions = "mean"

  def __init__(
    self,
    teacher_layer: str | Sequence[str],
    student_layer: str | Sequence[str],
    *,
    connector: str | keras.layers.Layer | None = None,
    alignment: str | None = None,
    epsilon: float = 1e-8,
    **options: Any,
  ):
    super().__init__(teacher_layer, student_layer, connector=connector, alignment=alignment, **options)
    if not epsilon > 0:
      raise ValueError(f"epsilon must be positive; got {epsilon}.")
    self.epsilon = epsilon

  def distance(self, teacher: tf.Tensor, student: tf.Tensor) -> tf.Tensor:
    return losses.normalized_feature_matching(teacher, student, epsilon=self.epsilon)
