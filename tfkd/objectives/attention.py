"""Attention transfer: where the networks respond (Zagoruyko, Komodakis 2017)."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfkd import losses
from tfkd.objectives.tapped import TappedObjective


@keras.utils.register_keras_serializable(package="tfkd")
class AttentionTransfer(TappedObjective):
  """The student attends to the positions that the teacher attends to (AT).

  Use it between networks of one family, at the ends of their stages: it needs no connector, whatever the widths.
  Source: Zagoruyko, Komodakis 2017, arXiv:1612.03928; see `tfkd.losses.attention_transfer`.

  Args:
    teacher_layer, student_layer, alignment: see `TappedObjective`; channels may differ.
    power: positive number; larger ones emphasise the strongest responses.
    form: "code" (mean of squares, as the authors released it) or "paper" (the norm, as in the equation).
    **options: weight, output and name, see `Objective`.
  Inputs: pair of lists of float [batch, ..., channels], sequences or maps. Output: float32 [batch], dimensionless.
  Example: tfkd.objectives.AttentionTransfer(["relu2", "relu4", "relu6"], ["relu2", "relu4", "relu6"])
  """

  acronyms = ("AT",)
  default_weight = 1000.0  # RepDistiller's, for form="code".
  must_agree = "positions"

  def __init__(
    self,
    teacher_layer: str | Sequence[str],
    student_layer: str | Sequence[str],
    *,
    alignment: str | None = None,
    power: float = 2,
    form: str = "code",
    **options: Any,
  ):
    super().__init__(teacher_layer, student_layer, connector=None, alignment=alignment, **options)
    if form not in ("code", "paper"):
      raise ValueError(f'form must be "code" or "paper"; got {form!r}.')
    self.power = power
    self.form = form

  def distance(self, teacher: tf.Tensor, student: tf.Tensor) -> tf.Tensor:
    return losses.attention_transfer(teacher, student, power=self.power, form=self.form)
