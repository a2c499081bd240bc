"""Base of the objectives on logits: temperature, standardization, and the checks of classes."""

import numbers

import tensorflow as tf

from tfkd import losses
from tfkd.objectives.base import Objective, as_number
from tfkd.ops.checks import check_temperature


class LogitObjective(Objective):
  """An objective on the two models' class distributions, given as logits.

  Args:
    temperature: positive finite number, dimensionless, or a scalar `tf.Variable` of it.
    weight, output, name: see `Objective`.
    standardize: whether to give each row of logits mean 0 and deviation 1 first (Sun et al. 2024, arXiv:2403.01427,
      whose temperature is 2 and weight 9).

  Raises:
    TypeError: temperature is no number.
    ValueError: temperature is not positive and finite.
  """

  # Whether `logits` standardizes them; an objective that standardizes for a part of its loss alone does it there.
  standardizes_all = True

  def __init__(self, temperature, weight=1.0, standardize=False, output=None, name=None, **kwargs):
    super().__init__(weight=weight, output=output, name=name, **kwargs)
    self.temperature = temperature
    self.standardize = standardize

  def __setattr__(self, name, value):
    if name == "temperature":
      check_is_temperature(value)
    super().__setattr__(name, value)

  def logits(self, *tensors):
    """The logits of teacher and student, or of the student alone, standardized if asked.

    A relational objective gets them as rows [elements, classes]: each token or pixel is an example of its own.

    Raises:
      ValueError: the shapes are unknown, are not those of two classes or more, or differ.
    """
    check_logits([tensor.shape for tensor in tensors], self.name)
    if self.relational:
      tensors = [tf.reshape(t, [-1, t.shape[-1]]) if t.shape.rank > 2 else t for t in tensors]
    standardize = self.standardize and self.standardizes_all
    return [losses.standardize_logits(t) for t in tensors] if standardize else list(tensors)

  def get_config(self):
    return {**super().get_config(), "temperature": as_number(self.temperature), "standardize": self.standardize}


def check_logits(shapes, name):
  """Raises ValueError unless these are shapes of class scores, of teacher and student or of the student alone.

  Args:
    shapes: list of `tf.TensorShape`, the student's last.
    name: the objective's, for the message.
  """
  for owner, shape in zip(("teacher", "student")[-len(shapes) :], shapes, strict=True):
    if shape.rank is None or shape.rank > 0 and shape[-1] is None:
      raise ValueError(
        f"{owner} logits have the unknown static shape {shape}, and objective '{name}' must know the classes: "
        "return tf.ensure_shape(logits, [None, classes]) from the function that computes them."
      )
    if shape.rank < 2 or shape[-1] < 2:
      raise ValueError(
        f"objective '{name}' compares class distributions, and the {owner} has an output of shape {shape}: one logit "
        "or one number is no distribution. Give both models two logits, [batch, 2], or for regression use "
        "tfkd.objectives.Hint on the output layers."
      )
  if len(shapes) == 2:
    _check_same_elements(*shapes, name)


def _check_same_elements(teacher, student, name):
  if teacher[-1] != student[-1]:
    raise ValueError(
      f"student logits have {student[-1]} classes, teacher logits {teacher[-1]}: build both with the data set's "
      "num_classes."
    )
  if teacher.rank != student.rank or not teacher[1:].is_compatible_with(student[1:]):
    raise ValueError(
      f"objective '{name}' compares logits position by position, and the teacher's have shape {teacher}, the "
      f"student's {student}: bring both to one resolution, for example with keras.layers.UpSampling2D or "
      "AveragePooling2D at the end of one of them."
    )


def check_is_temperature(temperature):
  """Raises unless this is a positive finite number, or a scalar tensor or variable."""
  if isinstance(temperature, tf.Variable):
    temperature = as_number(temperature) if tf.executing_eagerly() and temperature.shape.rank == 0 else temperature
  is_scalar = tf.is_tensor(temperature) and temperature.shape.rank == 0 and temperature.dtype.is_floating
  is_number = isinstance(temperature, numbers.Real) and not isinstance(temperature, bool)
  if not is_number and not is_scalar:
    raise TypeError(f"temperature must be a positive finite number; got {temperature!r}.")
  check_temperature(temperature)
