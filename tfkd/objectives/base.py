"""What every objective is: a Keras layer from what teacher and student gave to a loss per example."""

import math
import numbers
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

  Weights of elements and Keras masks need no code here: where an element of the inputs has weight zero, `call` finds
  zeros, and the `Distiller` multiplies the values by the weights. Hyper-parameters that are assigned after a fit are
  checked, and take effect in the next step.

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
  # Whether `call` gives values that are weighted already: see `TappedObjective`.
  positions = None

  def __init__(self, weight=1.0, output=None, name=None, **kwargs):
    kwargs.setdefault("dtype", "float32")
    super().__init__(name=name or snake_case(type(self).__name__), **kwargs)
    self.weight = weight
    self.output_key = output

  def __setattr__(self, name, value):
    if name == "weight":
      _check_weight(value, self.name)
    if name in ("teacher_layers", "student_layers", "alignment") and getattr(self, "built", False):
      raise ValueError(f"{name} of objective '{self.name}' cannot change once it is built: make another objective.")
    super().__setattr__(name, value)
    if not name.startswith("_"):
      vars(self)["_changes"] = self.changes + 1

  @property
  def changes(self):
    """How often public attributes were assigned: a step that was traced before holds their old values."""
    return vars(self).get("_changes", 0)

  def weight_at(self, step):
    """The weight at a step of the optimizer: a number, or a scalar tensor where `weight` is a schedule."""
    return tf.cast(self.weight(step), tf.float32) if callable(self.weight) else self.weight

  def get_config(self):
    weight = keras.saving.serialize_keras_object(self.weight) if callable(self.weight) else as_number(self.weight)
    return {**super().get_config(), "weight": weight, "output": self.output_key}

  @classmethod
  def from_config(cls, config):
    return cls(**{key: deserialized(value) for key, value in config.items()})

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


def class_indices(labels, classes, rank=1):
  """int32 [batch, ...] from class indices, with or without a last axis of length one, or from probabilities.

  Args:
    labels: [batch, ...], [batch, ..., 1] or [batch, ..., classes].
    classes: number of classes; None takes any.
    rank: axes of the result.

  Raises:
    ValueError: labels have another shape.
  """
  if labels.shape.rank == rank + 1 and labels.shape[-1] == 1:
    labels = tf.squeeze(labels, -1)
  elif labels.shape.rank == rank + 1 and classes in (None, labels.shape[-1]):
    labels = tf.argmax(labels, axis=-1)
  if labels.shape.rank != rank:
    elements = ", ".join(["batch", "..."][:rank])
    raise ValueError(
      f"labels must be class indices [{elements}] or probabilities [{elements}, {classes or 'classes'}]; got "
      f"{labels.shape}."
    )
  return tf.cast(labels, tf.int32)


def _check_weight(weight, name):
  if callable(weight) or isinstance(weight, tf.Variable):
    return
  is_number = isinstance(weight, numbers.Real) and not isinstance(weight, bool)
  if not (is_number and math.isfinite(weight) and weight >= 0):
    raise ValueError(f"weight of objective '{name}' must be a finite number >= 0; got {weight!r}.")


def snake_case(name):
  """SoftTargets to soft_targets, RKDAngle to rkd_angle."""
  return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def deserialized(value, custom_objects=None):
  """A Keras object that a configuration describes, also as SavedModels write it; any other value itself."""
  if isinstance(value, list):
    return [deserialized(part, custom_objects) for part in value]
  if not (isinstance(value, dict) and "class_name" in value):
    return value
  if "module" in value:
    return keras.saving.deserialize_keras_object(value, custom_objects)
  if hasattr(keras.optimizers.schedules, value["class_name"]):
    return keras.optimizers.schedules.deserialize(value, custom_objects, use_legacy_format=True)
  return keras.layers.deserialize(value, custom_objects, use_legacy_format=True)
