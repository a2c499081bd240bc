"""Inter-channel correlation: which channels of a feature respond together (Liu et al. 2021)."""

import tf_keras as keras

from tfkd import losses
from tfkd.objectives.tapped import TappedObjective


@keras.utils.register_keras_serializable(package="tfkd")
class ICKD(TappedObjective):
  """The student's channels, projected to the teacher's, respond together as the teacher's do (ICKD).

  Use it on the last map. Positions are summed over: heights and widths may differ.
  Source: Liu et al. 2021, arXiv:2202.03680; see `tfkd.losses.inter_channel_correlation`. The default weight is
  that of the authors' script for CIFAR-100.

  Args:
    teacher_layer, student_layer, weight, connector, name: see `TappedObjective`.
  Inputs: pair of lists of float [batch, height, width, channels]. Output: float32 [batch], dimensionless.
  Example: tfkd.objectives.ICKD("relu6", "relu6")
  """

  must_agree = "channels"
  fixed_arguments = ("alignment",)

  def __init__(self, teacher_layer, student_layer, weight=2.5, connector="conv1x1_bn", name=None, **kwargs):
    super().__init__(teacher_layer, student_layer, weight, connector, None, name, **kwargs)

  def distance(self, teacher, student):
    return losses.inter_channel_correlation(teacher, student)
