"""Similarity-preserving distillation: which examples of a batch excite a network alike (Tung, Mori 2019)."""

import tf_keras as keras

from tfkd import losses
from tfkd.objectives.tapped import TappedObjective


@keras.utils.register_keras_serializable(package="tfkd")
class SimilarityPreserving(TappedObjective):
  """Examples that excite the teacher alike excite the student alike (SP).

  Use it on the last map, whatever the two networks' shapes. It sees the batch of its own device: with several devices
  each compares its share of the global batch.
  Source: Tung, Mori 2019, arXiv:1907.09682; see `tfkd.losses.similarity_preserving`. The default weight is the paper's.

  Args:
    teacher_layer, student_layer, weight, name: see `TappedObjective`; shapes may differ.
  Inputs: pair of lists of float [batch, ...]. Output: float32 scalar, dimensionless.
  Example: tfkd.objectives.SimilarityPreserving("relu6", "relu6")
  """

  must_agree = "batch"
  relational = True
  fixed_arguments = ("connector", "alignment")

  def __init__(self, teacher_layer, student_layer, weight=3000.0, name=None, **kwargs):
    super().__init__(teacher_layer, student_layer, weight, None, None, name, **kwargs)

  def distance(self, teacher, student):
    return losses.similarity_preserving(teacher, student)
