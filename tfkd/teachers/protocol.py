"""The protocol of teachers: everything that a Distiller and a cache need of one."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import tensorflow as tf

from tfkd.features import ModelOutputs


@runtime_checkable
class Teacher(Protocol):
  """A frozen source of outputs. An object of any class with these two methods is used as it is.

  Models and functions need none of it: `Frozen` wraps them. A teacher may have more methods, which replace defaults:

  `feature_shapes(features)` returns static shapes by layer name, so that connectors are made with the `Distiller`
  instead of in the first step; or None if shapes are unknown before. `student_inputs(inputs)` returns the student's
  part of a batch that also holds something for the teacher; by default the student reads all of it.
  """

  def __call__(self, inputs: Any, features: Sequence[str] = ()) -> ModelOutputs:
    """Runs the teacher once, in inference mode and without gradient.

    Args:
      inputs: a batch, nested as the data set gives it.
      features: names of the layers to tap. Always empty for a teacher without layers.

    Returns:
      `ModelOutputs`, float32: logits, and the outputs of the named layers.
    """
    ...

  def describe(self) -> dict[str, Any]:
    """Describes the teacher by JSON values that differ between teachers, such as a digest of its weights.

    A cache stores them, and refuses to serve another teacher.
    """
    ...


def feature_shapes(teacher: Teacher, features: Sequence[str]) -> dict[str, tf.TensorShape] | None:
  """Static shapes of a teacher's features by layer name, or None if they are unknown before the first batch.

  Raises:
    ValueError: the teacher has no such layer.
  """
  method = getattr(teacher, "feature_shapes", None)
  return None if method is None else method(features)


def student_inputs(teacher: Teacher | None, inputs: Any) -> Any:
  """The student's part of a batch."""
  method = getattr(teacher, "student_inputs", None)
  return inputs if method is None else method(inputs)
