"""Refusals shared by the losses: they stop silent broadcasting and meaningless hyper-parameters."""

import math
import numbers


def check_temperature(temperature):
  """Raises ValueError unless `temperature` is positive and finite; tensors and variables pass unseen."""
  number = isinstance(temperature, numbers.Real)
  if number and not (math.isfinite(temperature) and temperature > 0):
    raise ValueError(f"temperature must be a positive finite number; got {temperature}.")


def check_same_shape(first, second, first_name, second_name):
  """Raises ValueError when the static shapes cannot be equal."""
  if not first.shape.is_compatible_with(second.shape):
    raise ValueError(
      f"{first_name} and {second_name} must have the same shape; got {first.shape} and {second.shape}. "
      "Build teacher and student with the data set's number of classes."
    )
