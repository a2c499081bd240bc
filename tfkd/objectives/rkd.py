"""Relations between embeddings of a batch: distances and angles (Park et al. 2019), and plain distances."""

import tensorflow as tf
import tf_keras as keras

from tfkd import losses
from tfkd.objectives.tapped import EmbeddingObjective


@keras.utils.register_keras_serializable(package="tfkd")
class RKDDistance(EmbeddingObjective):
  """Examples keep their distances to each other, up to a common scale (RKD-D).

  Use it on the last embedding, together with `RKDAngle`.
  Source: Park et al. 2019, arXiv:1904.05068; see `tfkd.losses.rkd_distance`.

  Args:
    teacher_layer, student_layer, connector: see `EmbeddingObjective`.
    **options: weight, output and name, see `Objective`.
  Inputs: pair of lists of float [batch, d], sequences or maps. Output: float32 scalar, dimensionless.
  Example: tfkd.objectives.RKDDistance("flatten", "flatten")
  """

  acronyms = ("RKD-D", "RKD")
  default_weight = 25.0  # The paper's.

  def distance(self, teacher: tf.Tensor, student: tf.Tensor) -> tf.Tensor:
    return losses.rkd_distance(teacher, student)


@keras.utils.register_keras_serializable(package="tfkd")
class RKDAngle(EmbeddingObjective):
  """Triplets of examples keep their angles (RKD-A).

  Use it on the last embedding, together with `RKDDistance`. Memory grows with the cube of the replica's batch.
  Source: Park et al. 2019, arXiv:1904.05068; see `tfkd.losses.rkd_angle`.

  Args:
    teacher_layer, student_layer, connector: see `EmbeddingObjective`.
    **options: weight, output and name, see `Objective`.
  Inputs: pair of lists of float [batch, d], sequences or maps. Output: float32 scalar, dimensionless.
  Example: tfkd.objectives.RKDAngle("flatten", "flatten")
  """

  acronyms = ("RKD-A", "RKD")
  default_weight = 50.0  # The paper's.

  def distance(self, teacher: tf.Tensor, student: tf.Tensor) -> tf.Tensor:
    return losses.rkd_angle(teacher, student)


@keras.utils.register_keras_serializable(package="tfkd")
class DistanceMetric(EmbeddingObjective):
  """Examples keep their Euclidean distances to each other, in the teacher's own units (DM).

  Use it if the student's embedding has the teacher's scale, or with a connector. See `tfkd.losses.distance_metric`.

  Args:
    teacher_layer, student_layer, connector: see `EmbeddingObjective`.
    **options: weight, output and name, see `Objective`.
  Inputs: pair of lists of float [batch, d], sequences or maps. Output: float32 scalar, squared units of embeddings.
  Example: tfkd.objectives.DistanceMetric("flatten", "flatten")
  """

  acronyms = ("DM",)

  def distance(self, teacher: tf.Tensor, student: tf.Tensor) -> tf.Tensor:
    return losses.distance_metric(teacher, student)
