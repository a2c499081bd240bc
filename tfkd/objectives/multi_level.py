"""Multi-level logit distillation: instance, batch and class at several temperatures (Jin, Wang, Lin 2023)."""

import tf_keras as keras

from tfkd import losses
from tfkd.objectives.logits import LogitObjective, check_is_temperature


@keras.utils.register_keras_serializable(package="tfkd")
class MultiLevel(LogitObjective):
  """Soft targets at several temperatures, and agreement of predictions and of classes with each other (MLLD).

  Use it for the strongest response distillation without labels or features. It compares the examples of a batch, on
  several devices each device's own.
  Source: Jin, Wang, Lin 2023, CVPR; see `tfkd.losses.multi_level`.

  Args:
    temperatures: positive finite numbers, dimensionless; their terms are added.
    standardize: whether the divergence alone is of standardized logits, as in the code of arXiv:2403.01427.
    weight, output, name: see `LogitObjective`.
  Inputs: pair of logits [batch, ..., classes]; tokens and pixels count as examples. Output: float32 scalar.
  Example: tfkd.objectives.MultiLevel()
  """

  relational = True
  standardizes_all = False

  def __init__(
    self, temperatures=(2.0, 3.0, 4.0, 5.0, 6.0), weight=1.0, standardize=False, output=None, name=None, **kwargs
  ):
    super().__init__(1.0, weight, standardize, output, name, **kwargs)
    for temperature in temperatures:
      check_is_temperature(temperature)
    self.temperatures = tuple(temperatures)

  def call(self, pair):
    return losses.multi_level(*self.logits(*pair), self.temperatures, standardize=self.standardize)

  def get_config(self):
    config = super().get_config()
    del config["temperature"]
    return {**config, "temperatures": list(self.temperatures)}
