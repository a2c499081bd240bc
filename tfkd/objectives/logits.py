"""Base of the objectives on logits: temperature, standardization, and the check of classes."""

from tfkd import losses
from tfkd.losses._checks import check_temperature
from tfkd.objectives.base import Objective, as_number


class LogitObjective(Objective):
  """An objective on the two models' logits.

  Args:
    temperature: positive finite number, dimensionless.
    weight, output, name: see `Objective`.
    standardize: whether to give each row of logits mean 0 and deviation 1 first (Sun et al. 2024, arXiv:2403.01427,
      whose temperature is 2 and weight 9).
  """

  # Whether `logits` standardizes them; an objective that standardizes for a part of its loss alone does it there.
  standardizes_all = True

  def __init__(self, temperature, weight=1.0, standardize=False, output=None, name=None, **kwargs):
    super().__init__(weight=weight, output=output, name=name, **kwargs)
    check_temperature(temperature)
    self.temperature = temperature
    self.standardize = standardize

  def logits(self, *tensors):
    """The logits of teacher and student, or of the student alone, standardized if asked.

    Raises:
      ValueError: teacher and student have different numbers of classes.
    """
    if len(tensors) == 2 and tensors[0].shape[-1] != tensors[1].shape[-1]:
      raise ValueError(
        f"student logits have {tensors[1].shape[-1]} classes, teacher logits {tensors[0].shape[-1]}: build both with "
        "the data set's num_classes."
      )
    standardize = self.standardize and self.standardizes_all
    return [losses.standardize_logits(t) for t in tensors] if standardize else list(tensors)

  def get_config(self):
    return {**super().get_config(), "temperature": as_number(self.temperature), "standardize": self.standardize}
