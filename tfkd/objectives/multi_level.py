"""Multi-level logit distillation: instance, batch and class at several temperatures (Jin, Wang, Lin 2023)."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfkd import losses
from tfkd.objectives.logits import LogitObjective, check_is_temperature


@keras.utils.register_keras_serializable(package="tfkd")
class MultiLevel(LogitObjective):
  """Soft targets at several temperatures, and Gram matrices of predictions over batch and classes (MLLD).

  Use it for the strongest response distillation without labels or features. It compares the examples of a batch; each
  replica compares its own share.
  Source: Jin, Wang, Lin 2023, CVPR; see `tfkd.losses.multi_level`.

  Args:
    temperatures: positive finite numbers, dimensionless; their terms are added.
    **options: weight, output and name, see `LogitObjective`; and standardize, which standardizes the logits of the
      divergence alone, as in the code of arXiv:2403.01427.
  Inputs: pair of logits [batch, ..., classes]; tokens and pixels count as examples. Output: float32 scalar.
  Example: tfkd.objectives.MultiLevel()
  """

  acronyms = ("MLLD", "MLKD")
  relational = True

  def __init__(self, temperatures: Sequence[float] = (2.0, 3.0, 4.0, 5.0, 6.0), **options: Any):
    super().__init__(**options)
    for temperature in temperatures:
      check_is_temperature(temperature)
    self.temperatures = tuple(temperatures)

  def call(self, inputs: tuple) -> tf.Tensor:
    return losses.multi_level(*self.checked(*inputs), temperatures=self.temperatures, standardize=self.standardize)
