"""Base class of the objectives on logits: standardization, and checks of shapes and temperatures."""

import numbers
from typing import Any

import tensorflow as tf

from tfkd import losses
from tfkd.objectives.base import Objective, as_number
from tfkd.ops.checks import check_temperature


class LogitObjective(Objective):
  """An objective on the two models' class distributions, given as logits.

  An attribute `temperature` of a subclass is checked when it is assigned.

  Args:
    standardize: whether to give each row of logits mean 0 and standard deviation 1 first (Sun et al. 2024,
      arXiv:2403.01427, whose temperature is 2 and weight 9).
    **options: weight, output and name, see `Objective`.

  Raises:
    TypeError: temperature is no number.
    ValueError: temperature is not positive and finite.
  """

  reads_classes = True

  def __init__(self, *, standardize: bool = False, **options: Any):
    super().__init__(**options)
    self.standardize = standardize

  def __setattr__(self, name: str, value: Any) -> None:
    if name == "temperature":
      check_is_temperature(value)
    super().__setattr__(name, value)

  def logits(self, *tensors: tf.Tensor) -> list[tf.Tensor]:
    """Checks the logits of teacher and student, or of the student alone, and standardizes them if `standardize` is set.

    Raises:
      ValueError: the shapes are unknown, differ, or have fewer than two classes.
    """
    checked = self.checked(*tensors)
    return [losses.standardize_logits(t) for t in checked] if self.standardize else checked

  def checked(self, *tensors: tf.Tensor) -> list[tf.Tensor]:
    """The logits as they are given; of a relational objective as rows [elements, classes].

    In a relational objective each token or pixel is an example of its own.

    Raises:
      ValueError: see `logits`.
    """
    check_logits([tensor.shape for tensor in tensors], self.name)
    if not self.relational:
      return list(tensors)
    return [tf.reshape(t, [-1, t.shape[-1]]) if t.shape.rank > 2 else t for t in tensors]

  def check_shapes(self, teacher: tf.TensorShape | None, student: tf.TensorShape | None) -> None:
    if student is not None:
      check_logits([student], self.name)
      if teacher is not None:
        check_logits([teacher, student], self.name)

  def get_config(self) -> dict[str, Any]:
    return {**super().get_config(), "standardize": self.standardize}


def check_logits(shapes: list[tf.TensorShape], name: str) -> None:
  """Raises ValueError unless these are shapes of class scores of teacher and student, or of the student alone.

  Args:
    shapes: static shapes, the student's last.
    name: the objective's name, for the message.
  """
  for owner, shape in zip(("teacher", "student")[-len(shapes) :], shapes, strict=True):
    if shape.rank is None or shape.rank > 0 and shape[-1] is None:
      raise ValueError(
        f"{owner} logits have the unknown static shape {shape}, and objective '{name}' needs the number of classes: "
        "return tf.ensure_shape(logits, [None, classes]) from the function that computes them."
      )
    if shape.rank < 2 or shape[-1] < 2:
      raise ValueError(
        f"objective '{name}' compares class distributions, and the {owner} has an output of shape {shape}: one logit "
        "or one number is no distribution. Give both models two logits, [batch, 2], or for regression use "
        "tfkd.objectives.Hint on the output layers."
      )
  if len(shapes) == 2:
    _check_same_elements(*shapes, name=name)


def _check_same_elements(teacher: tf.TensorShape, student: tf.TensorShape, name: str) -> None:
  if teacher[-1] != student[-1]:
    raise ValueError(
      f"objective '{name}' compares class by class, and teacher logits have {teacher[-1]} classes, student logits "
      f"{student[-1]}: build both with the data set's num_classes."
    )
  if teacher.rank != student.rank or not teacher[1:].is_compatible_with(student[1:]):
    raise ValueError(
      f"objective '{name}' compares logits position by position, but the teacher's have shape {teacher} and the "
      f"student's {student}: bring both to one resolution, for example with keras.layers.UpSampling2D or "
      "AveragePooling2D at the end of one model."
    )


def check_is_temperature(temperature: Any) -> None:
  """Raises unless this is a positive finite number, or a scalar tensor or variable."""
  if isinstance(temperature, tf.Variable):
    temperature = as_number(temperature) if tf.executing_eagerly() and temperature.shape.rank == 0 else temperature
  is_scalar = tf.is_tensor(temperature) and temperature.shape.rank == 0 and temperature.dtype.is_floating
  is_number = isinstance(temperature, numbers.Real) and not isinstance(temperature, bool)
  if not is_number and not is_scalar:
    raise TypeError(f"temperature must be a positive finite number; got {temperature!r}.")
  check_temperature(temperature)
