"""Distances between features position by position: FitNets' hint and its relatives."""

import tf_keras as keras

from tfkd import losses
from tfkd.objectives.tapped import TappedObjective


@keras.utils.register_keras_serializable(package="tfkd")
class Hint(TappedObjective):
  """The student's guided layer reproduces the teacher's hint layer through a connector (FitNets).

  Use it when the student is thinner or deeper than the teacher: together with `SoftTargets`, or alone in a first stage
  with `hard_loss_weight=0`, as in the paper. The connector is FitNets' regressor.
  Source: Romero et al. 2015, arXiv:1412.6550; see `tfkd.losses.hint`. The default weight is RepDistiller's.

  Args:
    teacher_layer, student_layer, weight, connector, alignment, name: see `TappedObjective`.
  Inputs: pair of lists of float [batch, ...]. Output: float32 [batch].
  Example: tfkd.objectives.Hint("relu4", "relu4", connector="conv1x1")
  """

  positions = "mean"

  def __init__(self, teacher_layer, student_layer, weight=100.0, connector=None, alignment=None, name=None, **kwargs):
    super().__init__(teacher_layer, student_layer, weight, connector, alignment, name, **kwargs)

  def distance(self, teacher, student):
    return losses.hint(teacher, student)


@keras.utils.register_keras_serializable(package="tfkd")
class Euclidean(TappedObjective):
  """The Euclidean distance between two features is small: `Hint` without the square.

  Use it where single examples with large errors should not rule the step. See `tfkd.losses.euclidean`.

  Args:
    teacher_layer, student_layer, weight, connector, alignment, name: see `TappedObjective`.
  Inputs: pair of lists of float [batch, ...]. Output: float32 [batch].
  Example: tfkd.objectives.Euclidean("relu4", "relu4", connector="conv1x1", weight=0.01)
  """

  def distance(self, teacher, student):
    return losses.euclidean(teacher, student)


@keras.utils.register_keras_serializable(package="tfkd")
class NormalizedFeatureMatching(TappedObjective):
  """The channel vectors of two features point the same way at each position.

  Use it where the magnitudes of the two networks' features have nothing to do with each other.
  See `tfkd.losses.normalized_feature_matching`.

  Args:
    teacher_layer, student_layer, weight, connector, alignment, name: see `TappedObjective`.
    epsilon: positive lower bound of a vector's length.
  Inputs: pair of lists of float [batch, ..., channels]. Output: float32 [batch], dimensionless.
  Example: tfkd.objectives.NormalizedFeatureMatching(["relu2", "relu4"], ["relu2", "relu4"], connector="conv1x1")
  """

  positions = "mean"

  def __init__(
    self,
    teacher_layer,
    student_layer,
    weight=100.0,
    connector=None,
    alignment=None,
    epsilon=1e-8,
    name=None,
    **kwargs,
  ):
    super().__init__(teacher_layer, student_layer, weight, connector, alignment, name, **kwargs)
    if not epsilon > 0:
      raise ValueError(f"epsilon must be positive; got {epsilon}.")
    self.epsilon = epsilon

  def distance(self, teacher, student):
    return losses.normalized_feature_matching(teacher, student, epsilon=self.epsilon)

  def get_config(self):
    return {**super().get_config(), "epsilon": self.epsilon}
