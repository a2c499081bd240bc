"""The forward passes of a step: one of the teacher and one of the student, however many objectives read them."""

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfkd.distiller.teachers import inputs_of_student, inputs_of_teacher, objectives_by_teacher, teacher_of
from tfkd.features import ModelOutputs
from tfkd.features.taps import Reader
from tfkd.objectives import Objective
from tfkd.ops.element_weights import mask_of
from tfkd.teachers import Teacher
from tfkd.teachers.protocol import feature_shapes


class ForwardPasses:
  """Runs each teacher and the student once, and reads the layers that objectives tap.

  A plain object, because Keras would track a layer and save the models twice.

  Args:
    teachers: see `tfkd.distiller.teachers.as_teachers`.
    student: `tf_keras` model.
    objectives: the objectives whose layers are tapped.

  Raises:
    ValueError: a model has no such layer, or an objective names no teacher of these.
  """

  def __init__(self, teachers: Mapping[str | None, Teacher], student: keras.Model, objectives: Sequence[Objective]):
    self._teachers, self._student, self._objectives = teachers, student, objectives
    layers = _layers(objectives, "student_layers")
    self._reader = Reader(student, layers) if layers else None
    self._shapes: dict[str | None, Any] = {
      name: feature_shapes(teachers[name], features, _specs(student))
      for name, features in self._features().items()
      if features
    }

  def build(self, objectives: Sequence[Objective]) -> None:
    """Makes the objectives' connectors if all shapes are known: errors are raised now; saving needs no prior call."""
    for objective in objectives:
      shapes = self._shapes.get(teacher_of(objective, list(self._teachers)))
      if objective.teacher_layers and not objective.built and shapes is not None:
        teacher = [shapes[name] for name in objective.teacher_layers]
        objective.build((teacher, [self._reader.shapes[name] for name in objective.student_layers]))

  def run_teacher(self, inputs: Any) -> ModelOutputs | dict[str, ModelOutputs] | None:
    """The teacher's outputs and tapped features; of several teachers a dict by name; None without a teacher."""
    found = {}
    for name, features in self._features().items():
      teacher, read = self._teachers[name], inputs_of_teacher(self._teachers, name, inputs)
      outputs = teacher(read, features) if features else teacher(read)
      found[name] = outputs if isinstance(outputs, ModelOutputs) else ModelOutputs(outputs)
    return found.get(None) if None in found or not found else found

  def student_inputs(self, inputs: Any) -> Any:
    """The student's part of a batch."""
    return inputs_of_student(self._teachers, inputs)

  def run_student(self, inputs: Any, training: bool) -> ModelOutputs:
    """The student's outputs and tapped features, float32 and with their Keras masks."""
    if self._reader is None:
      outputs, features = self._student(inputs, training=training), {}
    else:
      outputs, features = self._reader(inputs, training=training)
    return tf.nest.map_structure(_as_float32, ModelOutputs(outputs, features))

  def _features(self) -> dict[str | None, list[str]]:
    """Names of the tapped layers of each teacher. Read in each trace, as objectives may name another teacher."""
    named = objectives_by_teacher(self._objectives, list(self._teachers))
    return {name: _layers(named[name], "teacher_layers") for name in self._teachers}


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
