"""Argument checks of the losses, which prevent silent broadcasting and meaningless hyper-parameters."""

import math
import numbers
from typing import Any, TypeAlias

import tensorflow as tf

Scalar: TypeAlias = float | tf.Tensor | tf.Variable


def check_temperature(temperature: Any) -> None:
  """Raises ValueError unless `temperature` is positive and finite; tensors and variables are not checked."""
  number = isinstance(temperature, numbers.Real)
  if number and not (math.isfinite(temperature) and temperature > 0):
    raise ValueError(f"temperature must be a positive finite number; got {temperature}.")


def check_same_shape(first: tf.Tensor, second: tf.Tensor, first_name: str, second_name: str) -> None:
  """Raises ValueError if the static shapes cannot be equal."""
  if not first.shape.is_compatible_with(second.shape):
    raise ValueError(
      f"{first_name} and {second_name} must have the same shape; got {first.shape} and {second.shape}. "
      "Build teacher and student with the data set's number of classes, or align features with a connector."
    )


def check_rank(tensor: tf.Tensor, rank: int, name: str) -> None:
  """Raises ValueError unless the tensor has `rank` axes."""
  if tensor.shape.rank != rank:
    raise ValueError(f"{name} must have {rank} axes; got shape {tensor.shape}.")


def check_has_positions(tensor: tf.Tensor, name: str) -> None:
  """Raises ValueError unless the tensor is a sequence [batch, time, channels], a map, or has more axes."""
  if tensor.shape.rank is None or tensor.shape.rank < 3:
    raise ValueError(
      f"{name} must have axes of positions, as a sequence [batch, time, channels] or a map [batch, height, width, "
      f"channels]; got shape {tensor.shape}."
    )


def check_same_positions(teacher: tf.Tensor, student: tf.Tensor) -> None:
  """Raises ValueError unless both are sequences or maps that agree in all axes but the channels."""
  check_has_positions(teacher, "teacher feature")
  check_has_positions(student, "student feature")
  if not teacher.shape[:-1].is_compatible_with(student.shape[:-1]):
    raise ValueError(
      f"teacher and student feature must agree in batch and positions; got {teacher.shape} and {student.shape}. "
      "Pool or resize one of them."
    )


def check_same_batch(teacher: tf.Tensor, student: tf.Tensor) -> None:
  """Raises ValueError if the batch sizes cannot be equal."""
  if not teacher.shape[:1].is_compatible_with(student.shape[:1]):
    raise ValueError(f"teacher and student must have the same batch; got {teacher.shape} and {student.shape}.")


def check_logits_and_labels(teacher: tf.Tensor, student: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
  """Checks logits [batch, classes] of at least two classes, and labels [batch] in 0..classes - 1.

  Returns:
    labels as int32 [batch]. Labels out of range raise InvalidArgumentError when the graph runs.
  """
  check_rank(student, 2, "student logits")
  check_same_shape(teacher, student, "teacher logits", "student logits")
  classes = student.shape[1]
  if classes < 2:
    raise ValueError(f"the loss needs at least two classes; got logits {student.shape}.")
  labels = tf.cast(labels, tf.int32)
  check_rank(labels, 1, "labels")
  in_range = tf.debugging.Assert(
    tf.reduce_all((labels >= 0) & (labels < classes)), ["labels must be in 0..", classes - 1, "; got", labels]
  )
  # In eager mode the assertion has already run; in a graph the labels depend on it.
  with tf.control_dependencies([in_range] if in_range is not None else []):
    return tf.identity(labels)
