"""The protocol of teachers: everything that a Distiller and a cache need of one."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import tensorflow as tf

from tfkd.features import ModelOutputs


@runtime_checkable
class Teacher(Protocol):
  """A frozen source of outputs. An object of any class with these two methods is used as it is.

  Models and functions need none of it: `Frozen` wraps them. A teacher may have more methods, which replace defaults:

  `feature_shapes(features)` returns static shapes by layer name, so that connectors are made with the `Distiller`
  instead of in the first step; or None if shapes are unknown before. It may have a second argument `inputs`, nested
  `tf.TensorSpec` of a batch as the student reads it, or None. `student_inputs(inputs)` returns the student's
  part of a batch that also holds something for the teacher; by default the student reads all of it.
  """

  def __call__(self, inputs: Any, features: Sequence[str] = ()) -> ModelOutputs:
    """Runs the teacher once, in inference mode and without gradient.

    Args:
      inputs: a batch, nested as the data set gives it.
      features: names of the layers whose outputs objectives read, or of other features that this teacher gives.

    Returns:
      `ModelOutputs`, float32: logits, and at least the named features.
    """
    ...

  def describe(self) -> dict[str, Any]:
    """Describes the teacher by JSON values that differ between teachers, such as a digest of its weights.

    A cache stores them, and refuses to serve another teacher.
    """
    ...


def feature_shapes(
  teacher: Teacher, features: Sequence[str], inputs: Any = None
) -> Mapping[str, tf.TensorShape] | None:
  """Static shapes of a teacher's features by layer name, or None if they are unknown before the first batch.

  Args:
    teacher: the teacher.
    features: names of layers.
    inputs: nested `tf.TensorSpec` of a batch, or None if unknown.

  Raises:
    ValueError: the teacher has no such layer.
  """
  method = getattr(teacher, "feature_shapes", None)
  if method is None:
    return None
  return method(features, inputs) if "inputs" in inspect.signature(method).parameters else method(features)


def student_inputs(teacher: Teacher | None, inputs: Any) -> Any:
  """The student's part of a batch."""
  method = getattr(teacher, "student_inputs", None)
  return inputs if method is None else method(inputs)
