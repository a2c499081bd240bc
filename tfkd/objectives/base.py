"""What every objective is: a Keras layer from a (source, student) pair to a loss per example."""

import math
import re

import tf_keras as keras


class Objective(keras.layers.Layer):
  """One term that the student minimises, next to the hard loss.

  A subclass implements `call(pair)`, where `pair` is (teacher output, student output), and returns float32 [batch], or
  [batch, ...] whose further axes the `Distiller` averages. As a Keras layer it may own weights, and is saved, loaded
  and tracked like any other; its arithmetic is float32 whatever the global policy.

  Args:
    weight: absolute factor of this term in the total loss, >= 0.
    output: key or index of the output to read, where teacher and student have several; None where they have one.
    name: name of the term in logs; by default the class name in snake case.

  Raises:
    ValueError: weight is negative, NaN or infinite.
  """

  # "teacher" or "labels": what stands first in the pair.
  source = "teacher"

  def __init__(self, weight=1.0, output=None, name=None, **kwargs):
    kwargs.setdefault("dtype", "float32")
    super().__init__(name=name or _snake_case(type(self).__name__), **kwargs)
    if not (math.isfinite(weight) and weight >= 0):
      raise ValueError(f"weight of objective '{self.name}' must be a finite number >= 0; got {weight}.")
    self.weight = weight
    self.output_key = output

  def get_config(self):
    return {**super().get_config(), "weight": self.weight, "output": self.output_key}


def _snake_case(name):
  return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
