"""Checks of models and objectives when a Distiller is made: shapes, output activations, and names of terms."""

import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfkd.distiller.compilation import check_loss, is_on_logits, losses_by_output
from tfkd.distiller.teachers import objectives_by_teacher
from tfkd.features.outputs import flat_keys_of, keys_of, part_of
from tfkd.keras3 import is_keras3
from tfkd.losses import TopK
from tfkd.objectives import Batch, Objective
from tfkd.objectives.base import check_reads_top_k
from tfkd.ops.probabilities import KINDS, assert_logits, ending_of_tensor, endings
from tfkd.teachers import Teacher
from tfkd.teachers.frozen import name_of


def check_student(student: Any) -> None:
  """Raises TypeError unless the student is a `tf_keras` model without layers of Keras 3."""
  if not isinstance(student, keras.Model):
    raise TypeError(
      f"student must be a tf_keras model; got {type(student).__module__}.{type(student).__name__}. Build it with "
      "`import tf_keras as keras`: quantization-aware training needs Keras 2."
    )


def check_hard_loss_weight(weight: Any) -> None:
  """Raises ValueError unless the weight is a finite number >= 0, or a variable."""
  is_number = isinstance(weight, numbers.Real) and not isinstance(weight, bool)
  if not (isinstance(weight, tf.Variable) or is_number and math.isfinite(weight) and weight >= 0):
    raise ValueError(f"hard_loss_weight must be a finite number >= 0; got {weight}.")


def checked_objectives(objectives: Any) -> list[Objective]:
  """Returns a list of objectives from one or several.

  Raises:
    TypeError: one is not an `Objective`.
    ValueError: two terms have the same name.
  """
  objectives = [objectives] if isinstance(objectives, Objective) else list(objectives)
  for objective in objectives:
    if not isinstance(objective, Objective):
      hint = " The object is of Keras 3: subclass tfkd.objectives.Objective." if is_keras3(objective) else ""
      raise TypeError(f"objectives must be tfkd.objectives.Objective layers; got {objective!r}.{hint}")
  names = ["loss", "hard_loss", "agreement", *(objective.name for objective in objectives)]
  for name in names:
    if names.count(name) > 1:
      raise ValueError(f"two terms are called '{name}': give the objective another `name`.")
  return objectives


def check_models(teachers: Mapping[str | None, Teacher], student: keras.Model, objectives: Sequence[Objective]) -> None:
  """Raises ValueError if the models' static shapes or output activations do not fit the objectives on outputs.

  Args:
    teachers: see `tfkd.distiller.teachers.as_teachers`. If one wraps a Keras model as `model`, its graph is checked.
    student: `tf_keras` model.
    objectives: the distiller's objectives.
  """
  for name, its_objectives in objectives_by_teacher(objectives, list(teachers)).items():
    _check_pair(teachers.get(name), student, its_objectives)


def _check_pair(teacher: Teacher | None, student: keras.Model, objectives: Sequence[Objective]) -> None:
  model = getattr(teacher, "model", None)
  if getattr(teacher, "preprocess", None) is None:
    _check_inputs(model, student)
  shapes = _output_shapes(model), _output_shapes(student)
  ends = _by_key(student, endings(student)), _by_key(model, endings(model))
  for objective in objectives:
    if objective.student_layers:
      continue
    _check_has_output(objective, "student", shapes[1])
    if objective.reads_teacher:
      _check_has_output(objective, "teacher", shapes[0])
      k = getattr(teacher, "top_k", None)
      if k is not None:
        check_reads_top_k(objective, k)
    _check_student_ending(objective, _picked(ends[0], objective.output_key))
    if objective.reads_classes and _picked(ends[1], objective.output_key) == "sigmoid":
      raise ValueError(
        f"objective '{objective.name}' compares class distributions, and the teacher {name_of(model)} ends in sigmoid, "
        "whose outputs are independent of each other: give it a teacher of class logits."
      )
    if objective.reads_binary_logits and _picked(ends[1], objective.output_key) in KINDS:
      raise ValueError(
        f"objective '{objective.name}' reads logits of independent labels, and the teacher {name_of(model)} ends in "
        f"{_picked(ends[1], objective.output_key)}: give it a teacher without that last activation."
      )
    of_teacher, of_student = (_picked(s, objective.output_key) for s in shapes)
    objective.check_shapes(of_teacher if objective.reads_teacher else None, of_student)


def check_losses(student: keras.Model, outputs: Any, objectives: Sequence[Objective], container: Any) -> None:
  """Raises ValueError if the compiled losses or the objectives do not fit the student's output activations.

  Args:
    student: `tf_keras` model.
    outputs: nested outputs of a batch, which are examined if the graph of layers does not show their activations; or
      the symbolic outputs of that graph.
    objectives: the distiller's objectives.
    container: the student's `compiled_loss`, or None.
  """
  flat = tf.nest.flatten(outputs)
  known = endings(student) or [None] * len(flat)
  ends = [ending or ending_of_tensor(tensor) for ending, tensor in zip(known, flat, strict=True)]
  by_key = _keyed(outputs, ends)
  for objective in objectives:
    if not objective.student_layers:
      _check_student_ending(objective, _picked(by_key, objective.output_key))
  read, losses = read_as_classes(objectives, outputs), losses_by_output(container, outputs)
  for key, loss, ending in zip(flat_keys_of(outputs), losses, ends, strict=True):
    check_loss(loss, ending, repr(student.name if key is None else key), key in read)


def read_as_classes(objectives: Sequence[Objective], outputs: Any) -> set:
  """Keys of the outputs that objectives on class distributions read."""
  return _read([objective for objective in objectives if objective.reads_classes], outputs)


def read_as_labels(objectives: Sequence[Objective], outputs: Any) -> set:
  """Keys of the outputs that objectives on independent labels read."""
  return _read([objective for objective in objectives if objective.reads_binary_logits], outputs)


def _read(objectives: Sequence[Objective], outputs: Any) -> set:
  keys = keys_of(outputs)
  return {o.output_key if len(keys) > 1 else keys[0] for o in objectives}


def assert_read_logits(
  teachers: Mapping[str | None, Teacher],
  student: keras.Model,
  batch: Batch,
  objectives: Sequence[Objective],
  container: Any,
) -> list[tf.Tensor]:
  """Asserts that the outputs which objectives or the hard loss read as logits are not probabilities.

  Args:
    teachers, student: the models; outputs whose activations are known need no check.
    batch: the step's data.
    objectives: the distiller's objectives.
    container: the student's `compiled_loss`, or None.

  Returns:
    Tensors to depend on, see `tfkd.ops.probabilities.assert_logits`.
  """
  checks, outputs = [], batch.student.outputs
  if not _has_known_endings(student):
    losses = zip(flat_keys_of(outputs), losses_by_output(container, outputs), strict=True)
    read = read_as_classes(objectives, outputs) | {key for key, loss in losses if is_on_logits(loss)}
    checks += assert_logits(_parts(outputs, read), "the student")
  named = objectives_by_teacher(objectives, list(teachers))
  for name, teacher in teachers.items():
    if not _has_known_endings(getattr(teacher, "model", None)):
      read = read_as_classes([o for o in named[name] if o.reads_teacher], outputs)
      found = batch.teacher if name is None else batch.teacher[name]
      checks += assert_logits(_parts(found.outputs, read), "the teacher" if name is None else f"teacher {name!r}")
  return checks


def _parts(outputs: Any, keys: set) -> list:
  """Outputs of these keys, in one order, without those that are known to be logits."""
  chosen = [key for key in keys_of(outputs) if key in keys or len(keys_of(outputs)) == 1 and keys]
  return [part for part in (part_of(outputs, key) for key in chosen) if not isinstance(part, TopK)]


def _has_known_endings(model: Any) -> bool:
  ends = endings(model)
  return ends is not None and None not in ends


def _check_student_ending(objective: Objective, ending: str | None) -> None:
  is_wrong = ending == "softmax" or ending == "sigmoid" and (objective.reads_classes or objective.reads_binary_logits)
  if is_wrong:
    raise ValueError(
      f"objective '{objective.name}' reads the student's logits, and the student ends in {ending}: leave the {ending} "
      "out, compile with a loss of from_logits=True, and apply it where probabilities are needed."
    )


def _check_inputs(teacher: Any, student: keras.Model) -> None:
  shapes = [_input_shape(model) for model in (teacher, student)]
  if None in shapes or shapes[0].is_compatible_with(shapes[1]):
    return
  ranks = [shape.rank for shape in shapes]
  if abs(ranks[0] - ranks[1]) == 1 and 1 in (shapes[0][-1], shapes[1][-1]):
    return  # Keras adds or drops a last axis of length one.
  raise ValueError(
    f"teacher {name_of(teacher)} reads inputs of shape {shapes[0]}, student {name_of(student)} of shape {shapes[1]}, "
    "and both get the same batch: use tfkd.teachers.Frozen(teacher, preprocess=...), with a function from the "
    "student's inputs to the teacher's."
  )


def _input_shape(model: Any) -> tf.TensorShape | None:
  inputs = getattr(model, "inputs", None)
  is_single = inputs is not None and len(inputs) == 1 and hasattr(inputs[0], "shape")
  return tf.TensorShape(inputs[0].shape) if is_single else None


def structure_of(model: Any) -> Any:
  """Symbolic outputs of a model with a graph of layers, nested as its outputs are, or None."""
  for attribute in ("_nested_outputs", "_outputs_struct"):  # Keras 2, Keras 3.
    if getattr(model, attribute, None) is not None:
      return getattr(model, attribute)
  inner = getattr(model, "_functional", None)  # Keras 3's Sequential.
  return structure_of(inner) if inner is not None else None


def _output_shapes(model: Any) -> Any:
  structure = structure_of(model)
  return None if structure is None else tf.nest.map_structure(lambda t: tf.TensorShape(t.shape), structure)


def _by_key(model: Any, values: Any) -> dict | None:
  structure = structure_of(model)
  return None if structure is None or values is None else _keyed(structure, values)


def _keyed(structure: Any, values: list) -> dict | None:
  """A dict from key to value, by flattened order; None is the key of a single output."""
  keys = flat_keys_of(structure)
  return dict(zip(keys, values, strict=True)) if len(keys) == len(values) else None


def _check_has_output(objective: Objective, owner: str, structure: Any) -> None:
  """Raises ValueError if an objective names an output that a model lacks, or none of several.

  Args:
    objective: one that reads outputs. An own `inputs` may pick others than the named one.
    owner: "teacher" or "student".
    structure: nested outputs of the model or their shapes, or None if unknown.
  """
  if structure is None or not tf.nest.is_nested(structure):
    return
  keys, key = keys_of(structure), objective.output_key
  picks_itself = key is None and (len(keys) == 1 or type(objective).inputs is not Objective.inputs)
  if key not in keys and not picks_itself:
    raise ValueError(
      f"objective '{objective.name}' reads output {key!r}, and the {owner} returns {', '.join(map(repr, keys))}: set "
      "output to one that both models have."
    )


def _picked(by_key: Any, key: Any) -> Any:
  """The entry of one output, or None if it is unknown which output is meant."""
  if by_key is None or isinstance(by_key, tf.TensorShape):
    return by_key
  if not isinstance(by_key, dict):
    by_key = dict(enumerate(by_key))
  found = by_key[next(iter(by_key))] if len(by_key) == 1 else by_key.get(key)
  return found if not tf.nest.is_nested(found) else None
