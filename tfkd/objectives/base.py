"""Base class of all objectives: a Keras layer from the outputs of teacher and student to per-element losses."""

import copy
import inspect
import math
import numbers
import re
from collections.abc import Callable
from typing import Any, ClassVar

import tensorflow as tf
import tf_keras as keras

from tfkd.features.outputs import ModelOutputs, pick
from tfkd.losses import TopK
from tfkd.objectives.batch import Batch
from tfkd.ops.element_weights import at_positions, mask_of, without_dropped


class Objective(keras.layers.Layer):
  """One term that the student minimises, next to the hard loss.

  A subclass implements `call(inputs)`, which returns float32 [batch], or [batch, ...] whose further axes the
  `Distiller` averages, or a scalar if the loss compares the examples of a batch with each other. `inputs` is the pair
  (teacher output, student output); a subclass that needs more, such as labels, overrides `inputs(batch)`. As a Keras
  layer an objective may own weights, which are trained with the student, and is saved, loaded and tracked like any
  other layer; its arithmetic is float32 whatever the global policy.

  `get_config` is derived from the constructor's signature: assign every argument to an attribute of the same name.
  Hyper-parameters that are assigned after a fit are checked, and take effect in the next step.

  Sample weights and Keras masks need no code in `call`: elements of weight zero are replaced by zeros, and the
  `Distiller` multiplies the returned values by the weights.

  Args:
    weight: absolute factor of this term in the total loss, >= 0; or a function of the optimizer's step that returns
      it, such as a `keras.optimizers.schedules.LearningRateSchedule`; None for the class's `default_weight`. A scalar
      `tf.Variable` can be assigned another value without retracing; so can a temperature.
    output: key or index of the output to read if the models have several; None if they have one.
    teacher: name of the teacher to read if the `Distiller` has several; None if it has one.
    name: name of the term in logs; by default the class name in snake case.
    **kwargs: arguments of `keras.layers.Layer`.

  Raises:
    ValueError: weight is negative, NaN or infinite.
  """

  default_weight: ClassVar[float] = 1.0
  """Weight of the term if the constructor gets none."""
  acronyms: ClassVar[tuple[str, ...]] = ()
  """Names of the method in the literature, which `tfkd.objectives.get` accepts."""
  relational: ClassVar[bool] = False
  """Whether the loss compares the examples of a batch with each other. Each replica compares its own share."""
  reads_classes: ClassVar[bool] = False
  """Whether the loss reads the models' outputs as logits of a class distribution."""
  reads_binary_logits: ClassVar[bool] = False
  """Whether the loss reads the models' outputs as logits of independent labels."""
  reads_top_k: bool = False
  """Whether the loss can be computed from the k largest logits of the teacher, `tfkd.losses.TopK`."""
  positions: ClassVar[str | None] = None
  """Whether `call` weights positions itself: see `TappedObjective`."""
  teacher_layers: tuple[str, ...] = ()
  """Names of the teacher's layers to tap; empty if the objective reads the models' outputs."""
  student_layers: tuple[str, ...] = ()
  """Names of the student's layers to tap."""

  def __new__(cls, *args: Any, **kwargs: Any) -> "Objective":
    """Records the arguments that are passed on to a base class, for `get_config`."""
    objective = super().__new__(cls, *args, **kwargs)
    vars(objective)["_given"] = tuple(kwargs)
    return objective

  def __init__(
    self,
    *,
    weight: float | tf.Variable | Callable[[Any], Any] | None = None,
    output: str | int | None = None,
    teacher: str | None = None,
    name: str | None = None,
    **kwargs: Any,
  ):
    kwargs.setdefault("dtype", "float32")
    super().__init__(name=name or snake_case(type(self).__name__), **kwargs)
    self.weight = self.default_weight if weight is None else weight
    self.output_key = output
    self.teacher_name = teacher

  def __setattr__(self, name: str, value: Any) -> None:
    if name == "weight":
      _check_weight(value, self.name)
    if name in ("teacher_layers", "student_layers", "alignment") and getattr(self, "built", False):
      raise ValueError(f"{name} of objective '{self.name}' cannot change once it is built: make another objective.")
    super().__setattr__(name, value)
    if not name.startswith("_"):
      self.__dict__["_changes"] = self.changes + 1

  @property
  def reads_teacher(self) -> bool:
    """Whether the loss reads anything of the teacher."""
    return True

  @property
  def changes(self) -> int:
    """How often public attributes were assigned: a step that was traced before holds their old values."""
    return vars(self).get("_changes", 0)

  def inputs(self, batch: Batch) -> tuple:
    """Selects the inputs of `call` from a batch: by default the outputs of teacher and student.

    Raises:
      ValueError: the batch has no teacher or no labels but the objective reads them, or several outputs.
    """
    return self.teacher_output(batch), self.student_output(batch)

  def check_shapes(self, teacher: tf.TensorShape | None, student: tf.TensorShape | None) -> None:
    """Checks the outputs that this objective reads, when the `Distiller` is made; by default their last axes.

    Args:
      teacher, student: static shapes with the batch, or None if unknown or not read.

    Raises:
      ValueError: the shapes do not fit.
    """
    widths = [shape[-1] if shape is not None and shape.rank else None for shape in (teacher, student)]
    if None not in widths and widths[0] != widths[1]:
      raise ValueError(
        f"objective '{self.name}' reads the outputs of both models, and the teacher's have shape {teacher}, the "
        f"student's {student}: build both with the same number of classes or values."
      )

  def options(self, batch: Batch) -> dict[str, Any]:
    """Keyword arguments of `call` that depend on the batch: by default `training`, if `call` has such an argument."""
    return {"training": batch.training} if "training" in inspect.signature(self.call).parameters else {}

  def mask_of(self, feature: tf.Tensor) -> tf.Tensor | None:
    """The Keras mask of a tapped feature's positions: bool [batch, ...], or None."""
    return mask_of(feature)

  def without_dropped(self, feature: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """A tapped feature with zeros at its positions of weight zero.

    Args:
      feature: float [batch, ..., channels].
      weights: see `tfkd.ops.element_weights.at_positions`.
    """
    return without_dropped(feature, at_positions(weights, feature))

  def teacher_output(self, batch: Batch) -> tf.Tensor:
    """The output of the teacher that this objective reads."""
    found = pick(self.teacher_of(batch).outputs, self.output_key, "teacher", self.name)
    if isinstance(found, TopK):
      check_reads_top_k(self, found.shape[-1])
    return found

  def student_output(self, batch: Batch) -> tf.Tensor:
    """The output of the student that this objective reads."""
    return pick(batch.student.outputs, self.output_key, "student", self.name)

  def labels(self, batch: Batch) -> tf.Tensor:
    """The labels of the output that this objective reads."""
    if batch.labels is None:
      raise ValueError(f"objective '{self.name}' reads the labels, and the data has none.")
    return pick(batch.labels, self.output_key, "labels", self.name)

  def teacher_of(self, batch: Batch) -> ModelOutputs:
    """The batch's `ModelOutputs` of the teacher."""
    if batch.teacher is None:
      raise ValueError(
        f"objective '{self.name}' reads the teacher, and the distiller has none (saved files do not contain it): set "
        "`distiller.teacher`."
      )
    return batch.teacher

  def weight_at(self, step: tf.Tensor | int) -> float | tf.Tensor:
    """The weight at a step of the optimizer: a number, or a scalar tensor if `weight` is a schedule."""
    return tf.cast(self.weight(step), tf.float32) if callable(self.weight) else self.weight

  def get_config(self) -> dict[str, Any]:
    config = {**super().get_config(), "weight": _as_config(self.weight), "output": self.output_key}
    config |= {} if self.teacher_name is None else {"teacher": self.teacher_name}
    return config | {name: _as_config(getattr(self, name)) for name in self._arguments() if name not in config}

  @classmethod
  def from_config(cls, config: dict[str, Any]) -> "Objective":
    return cls(**{key: deserialized(value) for key, value in config.items()})

  def save_own_variables(self, store: Any) -> None:
    for index, variable in enumerate(self._stored_variables()):
      store[str(index)] = variable.numpy()

  def load_own_variables(self, store: Any) -> None:
    state = self._stored_variables()
    if len(state) != len(store.keys()):
      raise ValueError(f"objective '{self.name}' has {len(state)} variables; the file has {len(store.keys())}.")
    for index, variable in enumerate(state):
      variable.assign(store[str(index)])

  def _arguments(self) -> list[str]:
    """Names of the constructor's arguments."""
    _, *named = inspect.signature(type(self).__init__).parameters.values()
    return [p.name for p in named if p.kind is not p.VAR_KEYWORD] + list(self._given)

  def _stored_variables(self) -> list[tf.Variable]:
    """The variables other than hyper-parameters, which `get_config` stores as numbers."""
    hyper_parameters = {id(vars(self).get(name)) for name in ("weight", *self._arguments())}
    return [v for v in (*self._trainable_weights, *self._non_trainable_weights) if id(v) not in hyper_parameters]

  def get_build_config(self) -> dict[str, Any] | None:
    return {"shapes": self._build_shapes} if getattr(self, "_build_shapes", None) else None

  def build_from_config(self, config: dict[str, Any] | None) -> None:
    if config:
      self.build([[tf.TensorShape(shape) for shape in side] for side in config["shapes"]])

  def build(self, input_shape: Any) -> None:
    if self.relational and any(shape[0] == 1 for shape in tf.nest.flatten(input_shape)):
      raise ValueError(
        f"objective '{self.name}' compares the examples of a batch, and the batch has one: use at least two examples."
      )
    if self.teacher_layers:
      # Loading a file makes its weights before the first batch; plain lists, because JSON keeps them.
      self._build_shapes = [[shape.as_list() for shape in side] for side in input_shape[:2]]
    super().build(input_shape)


def check_reads_top_k(objective: Objective, k: int | None) -> None:
  """Raises ValueError unless an objective can be computed from the k largest logits of the teacher."""
  if not objective.reads_top_k:
    raise ValueError(
      f"objective '{objective.name}' reads all logits of the teacher, and {k} of each example are stored: write the "
      "cache without top_k, or use SoftTargets or Decoupled without standardize."
    )


def as_number(value: Any) -> Any:
  """The number that a scalar variable holds; any other value unchanged."""
  return float(value.numpy()) if isinstance(value, tf.Variable) else value


def class_indices(labels: tf.Tensor, classes: int | None, elements: tf.TensorShape) -> tf.Tensor:
  """Converts labels to class indices.

  Args:
    labels: class indices [batch, ...] or [batch, ..., 1], or probabilities [batch, ..., classes].
    classes: number of classes; None accepts any.
    elements: static shape of the result: that of the outputs without their last axis.

  Returns:
    int32 [batch, ...].

  Raises:
    ValueError: labels have another shape.
  """
  indices = labels
  if labels.shape.rank == elements.rank + 1 and labels.shape[-1] == 1:
    indices = tf.squeeze(labels, -1)
  elif labels.shape.rank == elements.rank + 1 and classes in (None, labels.shape[-1]):
    indices = tf.argmax(labels, axis=-1)
  if not indices.shape.is_compatible_with(elements):
    sizes = ", ".join(["batch", *map(str, elements[1:])])
    raise ValueError(
      f"labels must be class indices [{sizes}] or probabilities [{sizes}, {classes or 'classes'}]; got shape "
      f"{labels.shape}."
    )
  return tf.cast(indices, tf.int32)


def snake_case(name: str) -> str:
  """SoftTargets to soft_targets, RKDAngle to rkd_angle."""
  return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def deserialized(value: Any, custom_objects: dict[str, Any] | None = None) -> Any:
  """Creates the Keras object of a configuration, also of a SavedModel's; returns other values unchanged."""
  if isinstance(value, list):
    return [deserialized(part, custom_objects) for part in value]
  if not (isinstance(value, dict) and "class_name" in value):
    return value
  if "module" in value:
    # Keras removes entries from the configuration of a loss.
    return keras.saving.deserialize_keras_object(copy.deepcopy(value), custom_objects)
  if hasattr(keras.optimizers.schedules, value["class_name"]):
    return keras.optimizers.schedules.deserialize(value, custom_objects, use_legacy_format=True)
  return keras.layers.deserialize(value, custom_objects, use_legacy_format=True)


def _as_config(value: Any) -> Any:
  """A value as JSON can hold it."""
  if isinstance(value, tf.Variable):
    return as_number(value)
  if callable(value):
    return keras.saving.serialize_keras_object(value)
  return list(value) if isinstance(value, tuple) else value


def _check_weight(weight: Any, name: str) -> None:
  if callable(weight) or isinstance(weight, tf.Variable):
    return
  is_number = isinstance(weight, numbers.Real) and not isinstance(weight, bool)
  if not (is_number and math.isfinite(weight) and weight >= 0):
    raise ValueError(f"weight of objective '{name}' must be a finite number >= 0; got {weight!r}.")
