"""What a Distiller refuses when it is made: objectives that teacher and student cannot serve together."""

import math
import numbers

import tensorflow as tf
import tf_keras as keras

from tfkd.distiller.compilation import check_loss, is_on_logits, losses_by_output
from tfkd.features.outputs import flat_keys_of, keys_of, part_of
from tfkd.features.taps import Reader, is_keras3
from tfkd.objectives import Objective
from tfkd.objectives.logits import check_logits
from tfkd.ops.probabilities import checks_of_logits, ending_of_tensor, endings
from tfkd.teachers.frozen import name_of


def check_student(student):
  """Raises TypeError unless the student is a `tf_keras` model without layers of Keras 3."""
  if not isinstance(student, keras.Model):
    raise TypeError(
      f"student must be a tf_keras model; got {type(student).__module__}.{type(student).__name__}. Build it with "
      "`import tf_keras as keras`: quantization-aware training needs Keras 2."
    )


def check_hard_loss_weight(weight):
  """Raises ValueError unless this is a finite number >= 0, or a variable."""
  is_number = isinstance(weight, numbers.Real) and not isinstance(weight, bool)
  if not (isinstance(weight, tf.Variable) or is_number and math.isfinite(weight) and weight >= 0):
    raise ValueError(f"hard_loss_weight must be a finite number >= 0; got {weight}.")


def checked_objectives(objectives):
  """A list of objectives from one or several, with different names."""
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


def check_models(teacher, student, objectives):
  """Raises ValueError where the static shapes or endings of both models do not serve the objectives on outputs.

  Args:
    teacher: the teacher, or None.
    student: `tf_keras` model.
    objectives: list of `Objective`.
  """
  model = getattr(teacher, "model", None)
  if getattr(teacher, "preprocess", None) is None:
    _check_inputs(model, student)
  shapes = _output_shapes(model), _output_shapes(student)
  ends = _by_key(student, endings(student)), _by_key(model, endings(model))
  for objective in objectives:
    if objective.student_layers:
      continue
    _check_student_ending(objective, _picked(ends[0], objective.output_key))
    if objective.reads_classes and _picked(ends[1], objective.output_key) == "sigmoid":
      raise ValueError(
        f"objective '{objective.name}' compares class distributions, and the teacher {name_of(model)} ends in sigmoid, "
        "whose outputs are independent of each other: give it a teacher of class logits."
      )
    _check_shapes(objective, model, student, *(_picked(s, objective.output_key) for s in shapes))


def check_losses(student, outputs, objectives, container):
  """Raises ValueError where the compiled losses or the objectives do not fit what the student's outputs end in.

  Args:
    student: `tf_keras` model.
    outputs: nested outputs of a batch, of which those are looked at whose endings no graph of layers tells; or those
      of the graph of layers.
    objectives: list of `Objective`.
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


def read_as_classes(objectives, outputs):
  """Keys of the outputs that objectives on class distributions read."""
  keys = keys_of(outputs)
  return {o.output_key if len(keys) > 1 else keys[0] for o in objectives if o.reads_classes}


def checks_of_read_logits(teacher, student, teacher_outputs, student_outputs, objectives, container):
  """Tensors that end the step where outputs that objectives or the hard loss take for logits are probabilities.

  Args:
    teacher, student: the models, of which known endings need no check.
    teacher_outputs, student_outputs: nested outputs of the batch.
    objectives: list of `Objective`.
    container: the student's `compiled_loss`, or None.
  """
  checks = []
  if not _has_known_endings(student):
    losses = zip(flat_keys_of(student_outputs), losses_by_output(container, student_outputs), strict=True)
    read = read_as_classes(objectives, student_outputs) | {key for key, loss in losses if is_on_logits(loss)}
    checks += checks_of_logits(_parts(student_outputs, read), "the student")
  if teacher is not None and not _has_known_endings(getattr(teacher, "model", None)):
    read = read_as_classes([o for o in objectives if o.reads_teacher], student_outputs)
    checks += checks_of_logits(_parts(teacher_outputs, read), "the teacher")
  return checks


def _parts(outputs, keys):
  """Outputs of these keys, in one order."""
  return [part_of(outputs, key) for key in keys_of(outputs) if key in keys or len(keys_of(outputs)) == 1 and keys]


def _has_known_endings(model):
  ends = endings(model)
  return ends is not None and None not in ends


def _check_student_ending(objective, ending):
  is_wrong = ending == "softmax" or ending == "sigmoid" and objective.reads_classes
  if is_wrong:
    raise ValueError(
      f"objective '{objective.name}' reads the student's logits, and the student ends in {ending}: leave the {ending} "
      "out, compile with a loss of from_logits=True, and apply it where probabilities are needed."
    )


def _check_shapes(objective, model, student, teacher_shape, student_shape):
  is_of_teacher = objective.reads_teacher
  classes = [shape[-1] if shape is not None and shape.rank else None for shape in (teacher_shape, student_shape)]
  if is_of_teacher and None not in classes and classes[0] != classes[1]:
    raise ValueError(
      f"teacher logits have {classes[0]} classes ({model.name}), student logits {classes[1]} ({student.name}): build "
      "both with the data set's num_classes."
    )
  if objective.reads_classes:
    if student_shape is not None:
      check_logits([student_shape], objective.name)
    if is_of_teacher and teacher_shape is not None and student_shape is not None:
      check_logits([teacher_shape, student_shape], objective.name)


def _check_inputs(teacher, student):
  shapes = [_input_shape(model) for model in (teacher, student)]
  if None in shapes or shapes[0].is_compatible_with(shapes[1]):
    return
  ranks = [shape.rank for shape in shapes]
  if abs(ranks[0] - ranks[1]) == 1 and 1 in (shapes[0][-1], shapes[1][-1]):
    return  # Keras adds or drops a last axis of length one.
  raise ValueError(
    f"teacher {name_of(teacher)} reads inputs of shape {shapes[0]}, student {name_of(student)} of shape {shapes[1]}, "
    "and both get the same batch: give tfkd.teachers.Frozen(teacher, preprocess=...), with a function from the "
    "student's inputs to the teacher's."
  )


def _input_shape(model):
  inputs = getattr(model, "inputs", None)
  is_single = inputs is not None and len(inputs) == 1 and hasattr(inputs[0], "shape")
  return tf.TensorShape(inputs[0].shape) if is_single else None


def structure_of(model):
  """Symbolic outputs of a model with a graph of layers, nested as its outputs are, or None."""
  for attribute in ("_nested_outputs", "_outputs_struct"):  # Keras 2, Keras 3.
    if getattr(model, attribute, None) is not None:
      return getattr(model, attribute)
  inner = getattr(model, "_functional", None)  # Keras 3's Sequential.
  return structure_of(inner) if inner is not None else None


def _output_shapes(model):
  structure = structure_of(model)
  return None if structure is None else tf.nest.map_structure(lambda t: tf.TensorShape(t.shape), structure)


def _by_key(model, values):
  structure = structure_of(model)
  return None if structure is None or values is None else _keyed(structure, values)


def _keyed(structure, values):
  """A dict from key to value, by flattened order; None is the key of a single output."""
  keys = flat_keys_of(structure)
  return dict(zip(keys, values, strict=True)) if len(keys) == len(values) else None


def _picked(by_key, key):
  """What one output has, or None where it is not known which is meant."""
  if by_key is None or isinstance(by_key, tf.TensorShape):
    return by_key
  if not isinstance(by_key, dict):
    by_key = dict(enumerate(by_key))
  found = by_key[next(iter(by_key))] if len(by_key) == 1 else by_key.get(key)
  return found if not tf.nest.is_nested(found) else None


def build_objectives(teacher, student, objectives):
  """Makes connectors as soon as both models' shapes are known: errors come now, and saving needs no prior call."""
  for objective in objectives:
    if not objective.teacher_layers or objective.built or teacher is None:
      continue
    of_teacher = teacher.tap_shapes(objective.teacher_layers)
    if of_teacher is not None:
      of_student = Reader(student, objective.student_layers).shapes
      objective.build(
        (
          [of_teacher[name] for name in objective.teacher_layers],
          [of_student[name] for name in objective.student_layers],
        )
      )
