"""Attention transfer: where the networks respond (Zagoruyko, Komodakis 2017)."""

import tf_keras as keras

from tfkd import losses
from tfkd.objectives.tapped import TappedObjective


@keras.utils.register_keras_serializable(package="tfkd")
class AttentionTransfer(TappedObjective):
  """The student looks where the teacher looks (AT).

  Use it between networks of one family, at the ends of their stages: it needs no connector, whatever the widths.
  Source: Zagoruyko, Komodakis 2017, arXiv:1612.03928; see `tfkd.losses.attention_transfer`. The default weight is
  RepDistiller's, for the code's form.

  Args:
    teacher_layer, student_layer, weight, alignment, name: see `TappedObjective`; channels may differ.
    power: positive number; larger ones look at the strongest responses only.
    form: "code" (mean of squares, as the authors released it) or "paper" (the norm, as the equation).
  Inputs: pair of lists of float [batch, height, width, channels]. Output: float32 [batch], dimensionless.
  Example: tfkd.objectives.AttentionTransfer(["relu2", "relu4", "relu6"], ["relu2", "relu4", "relu6"])
  """

  must_agree = "positions"
  fixed_arguments = ("connector",)

  def __init__(
    self, teacher_layer, student_layer, weight=1000.0, alignment=None, power=2, form="code", name=None, **kwargs
  ):
    super().__init__(teacher_layer, student_layer, weight, None, alignment, name, **kwargs)
    if form not in ("code", "paper"):
      raise ValueError(f'form must be "code" or "paper"; got {form!r}.')
    self.power = power
    self.form = form

  def distance(self, teacher, student):
    return losses.attention_transfer(teacher, student, power=self.power, form=self.form)

  def get_config(self):
    return {**super().get_config(), "power": self.power, "form": self.form}
