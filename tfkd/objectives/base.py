"""What every objective is: a Keras layer from what teacher and student gave to a loss per example."""

import math
import re

import tensorflow as tf
import tf_keras as keras


class Objective(keras.layers.Layer):
  """One term that the student minimises, next to the hard loss.

  A subclass implements `call(inputs)`, where `inputs` is the pair (teacher output, student output), and returns float32
  [batch], or [batch, ...] whose further axes the `Distiller` averages, or a scalar if it compares the examples of a
  batch with each other. It may name `training` and `step` (of the optimizer) as further arguments of `call`. As a Keras
  layer it may own weights, which are trained with the student, and is saved, loaded and tracked like any other; its
  arithmetic is float32 whatever the global policy.

  Args:
    weight: absolute factor of this term in the total loss, >= 0; or a function of the optimizer's step that returns
      it, such as a `keras.optimizers.schedules.LearningRateSchedule`. A scalar `tf.Variable` can be assigned another
      value without a new trace; so can a temperature.
    output: key or index of the output to read, where teacher and student have several; None where they have one.
    name: name of the term in logs; by default the class name in snake case.

  Raises:
    ValueError: weight is negative, NaN or infinite.
  """

  # "teacher" or "labels": what stands first in the pair.
  source = "teacher"
  # Whether `call` gets a triple, with the data's labels at its end; see `class_indices`.
  reads_labels = False
  # Whether `call` compares the examples of a batch with each other and returns a scalar. It sees the replica's batch.
  relational = False
  # Names of the layers to read instead of the outputs; `inputs` is a pair of lists then.
  teacher_layers = ()
  student_layers = ()

  def __init__(self, weight=1.0, output=None, name=None, **kwargs):
    kwargs.setdefault("dtype", "float32")
    super().__init__(name=name or snake_case(type(self).__name__), **kwargs)
    is_number = not (callable(weight) or isinstance(weight, tf.Variable))
    if is_number and not (math.isfinite(weight) and weight >= 0):
      raise ValueError(f"weight of objective '{self.name}' must be a finite number >= 0; got {weight}.")
    self.weight = weight
    self.output_key = output

  def weight_at(self, step):
    """The weight at a step of the optimizer: a number, or a scalar tensor where `weight` is a schedule."""
    return tf.cast(self.weight(step), tf.float32) if callable(self.weight) else self.weight

  def get_config(self):
    weight = keras.saving.serialize_keras_object(self.weight) if callable(self.weight) else as_number(self.weight)
    return {**super().get_config(), "weight": weight, "output": self.output_key}

  @classmethod
  def from_config(cls, config):
    return cls(**{key: _deserialized(value) for key, value in config.items()})

  def get_build_config(self):
    return {"shapes": self._build_shapes} if getattr(self, "_build_shapes", None) else None

  def build_from_config(self, config):
    if config:
      self.build([[tf.TensorShape(shape) for shape in side] for side in config["shapes"]])

  def build(self, input_shape):
    if self.relational and any(shape[0] == 1 for shape in tf.nest.flatten(input_shape)):
      raise ValueError(
        f"objective '{self.name}' compares the examples of a batch, and the batch is one: use at least two examples."
      )
    if self.teacher_layers:
      # So that a file's weights find their place before the first batch; as plain lists, which JSON keeps.
      self._build_shapes = [[shape.as_list() for shape in side] for side in input_shape[:2]]
    super().build(input_shape)


def as_number(value):
  """The number that a scalar variable holds, or the number itself."""
  return float(value.numpy()) if isinstance(value, tf.Variable) else value


def class_indices(labels, classes):
  """int32 [batch] from class indices [batch] or [batch, 1], or from probabilities [batch, classes].

  Raises:
    ValueError: labels have another shape; `classes` None takes any number of them.
  """
  if labels.shape.rank == 2 and labels.shape[1] == 1:
    labels = tf.squeeze(labels, 1)
  elif labels.shape.rank == 2 and classes in (None, labels.shape[1]):
    labels = tf.argmax(labels, axis=1)
  if labels.shape.rank != 1:
    raise ValueError(
      f"labels must be class indices [batch] or probabilities [batch, {classes or 'classes'}]; got {labels.shape}."
    )
  return tf.cast(labels, tf.int32)


def snake_case(name):
  """SoftTargets to soft_targets, RKDAngle to rkd_angle."""
  return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def _deserialized(value):
  """A Keras object that an argument is, or the value itself."""
  is_object = isinstance(value, dict) and "class_name" in value
  return keras.saving.deserialize_keras_object(value) if is_object else value
