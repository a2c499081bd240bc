"""The forward passes of a step: one of the teacher and one of the student, however many objectives read them."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfkd.features import ModelOutputs
from tfkd.features.taps import Reader
from tfkd.objectives import Objective
from tfkd.ops.element_weights import mask_of
from tfkd.teachers import Teacher
from tfkd.teachers.protocol import feature_shapes


class ForwardPasses:
  """Runs teacher and student once each, and reads the layers that objectives tap.

  A plain object, because Keras would track a layer and save the models twice.

  Args:
    teacher: the teacher, or None.
    student: `tf_keras` model.
    objectives: the objectives whose layers are tapped.

  Raises:
    ValueError: a model has no such layer.
  """

  def __init__(self, teacher: Teacher | None, student: keras.Model, objectives: Sequence[Objective]):
    self._teacher, self._student = teacher, student
    self._features = _layers(objectives, "teacher_layers")
    layers = _layers(objectives, "student_layers")
    self._reader = Reader(student, layers) if layers else None
    self._shapes = None
    if teacher is not None and self._features:
      self._shapes = feature_shapes(teacher, self._features, _specs(student))

  def build(self, objectives: Sequence[Objective]) -> None:
    """Makes the objectives' connectors if all shapes are known: errors are raised now; saving needs no prior call."""
    for objective in objectives:
      if objective.teacher_layers and not objective.built and self._shapes is not None:
        teacher = [self._shapes[name] for name in objective.teacher_layers]
        objective.build((teacher, [self._reader.shapes[name] for name in objective.student_layers]))

  def run_teacher(self, inputs: Any) -> ModelOutputs | None:
    """The teacher's outputs and tapped features, or None without a teacher."""
    if self._teacher is None:
      return None
    found = self._teacher(inputs, self._features) if self._features else self._teacher(inputs)
    return found if isinstance(found, ModelOutputs) else ModelOutputs(found)

  def run_student(self, inputs: Any, training: bool) -> ModelOutputs:
    """The student's outputs and tapped features, float32 and with their Keras masks."""
    if self._reader is None:
      outputs, features = self._student(inputs, training=training), {}
    else:
      outputs, features = self._reader(inputs, training=training)
    return tf.nest.map_structure(_as_float32, ModelOutputs(outputs, features))


def _as_float32(tensor: tf.Tensor) -> tf.Tensor:
  cast = tf.cast(tensor, tf.float32)
  if mask_of(tensor) is not None:
    cast._keras_mask = mask_of(tensor)  # pyright: ignore[reportAttributeAccessIssue]
  return cast


def _specs(student: keras.Model) -> Any:
  """Nested `tf.TensorSpec` of the student's inputs, or None if it has no graph of layers."""
  inputs = getattr(student, "_nested_inputs", None)
  return None if inputs is None else tf.nest.map_structure(lambda x: tf.TensorSpec(x.shape, x.dtype), inputs)


def _layers(objectives: Sequence[Objective], attribute: str) -> list[str]:
  """Names of all layers that objectives tap, each once."""
  return sorted({name for objective in objectives for name in getattr(objective, attribute)})
