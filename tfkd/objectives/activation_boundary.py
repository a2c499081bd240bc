"""Activation boundaries: which neurons fire, not how strongly (Heo et al. 2019)."""

import tf_keras as keras

from tfkd import losses
from tfkd.objectives.tapped import TappedObjective


@keras.utils.register_keras_serializable(package="tfkd")
class ActivationBoundary(TappedObjective):
  """The student's neurons fire where the teacher's do (AB).

  Use it as a first stage, on features before their ReLU: the outputs of batch normalisation.
  Source: Heo et al. 2019, arXiv:1811.03233; see `tfkd.losses.activation_boundary`, a sum over the elements of an
  example. The small default weight is that of the authors' code, which halves it for each earlier layer.

  Args:
    teacher_layer, student_layer, weight, connector, alignment, name: see `TappedObjective`.
    margin: positive number, how far beyond zero a neuron should be.
  Inputs: pair of lists of float [batch, ...] before ReLU. Output: float32 [batch].
  Example: tfkd.objectives.ActivationBoundary("bn6", "bn6")
  """

  positions = "sum"

  def __init__(
    self,
    teacher_layer,
    student_layer,
    weight=3e-3,
    connector="conv1x1_bn",
    alignment=None,
    margin=1.0,
    name=None,
    **kwargs,
  ):
    super().__init__(teacher_layer, student_layer, weight, connector, alignment, name, **kwargs)
    if not margin > 0:
      raise ValueError(f"margin must be positive; got {margin}.")
    self.margin = margin

  def distance(self, teacher, student):
    return losses.activation_boundary(teacher, student, margin=self.margin)

  def get_config(self):
    return {**super().get_config(), "margin": self.margin}
