"""Neuron selectivity transfer: the distribution of channels' responses (Huang, Wang 2017)."""

import tf_keras as keras

from tfkd import losses
from tfkd.objectives.tapped import TappedObjective


@keras.utils.register_keras_serializable(package="tfkd")
class NeuronSelectivity(TappedObjective):
  """The student's channels, as a set, respond like the teacher's (NST).

  Use it on late layers of two networks of one family; it needs no connector, whatever the widths.
  Source: Huang, Wang 2017, arXiv:1707.01219; see `tfkd.losses.neuron_selectivity`. The default weight is
  RepDistiller's.

  Args:
    teacher_layer, student_layer, weight, alignment, name: see `TappedObjective`; channels may differ.
  Inputs: pair of lists of float [batch, height, width, channels]. Output: float32 [batch], dimensionless.
  Example: tfkd.objectives.NeuronSelectivity("relu6", "relu6")
  """

  must_agree = "positions"
  fixed_arguments = ("connector",)

  def __init__(self, teacher_layer, student_layer, weight=50.0, alignment=None, name=None, **kwargs):
    super().__init__(teacher_layer, student_layer, weight, None, alignment, name, **kwargs)

  def distance(self, teacher, student):
    return losses.neuron_selectivity(teacher, student)
