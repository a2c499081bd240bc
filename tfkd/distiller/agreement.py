"""Agreement: the share of decisions on which student and teacher choose the same class."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfkd.distiller.compilation import is_on_classes, losses_by_output
from tfkd.distiller.model_checks import read_as_classes
from tfkd.distiller.teachers import first_outputs
from tfkd.features.outputs import flat_keys_of, keys_of, part_of
from tfkd.objectives import Batch, Objective
from tfkd.ops.element_weights import combined, mask_of, of_elements, with_rank


def names_of(outputs: Any, output_names: Sequence[str] | None) -> dict[Any, str]:
  """Names of the agreement metrics by output key: "agreement" for a single output, else "<output>_agreement".

  Args:
    outputs: nested outputs, of which only the structure is read.
    output_names: names of the flattened outputs, or None to number them.
  """
  if not tf.nest.is_nested(outputs):
    return {None: "agreement"}
  keys = keys_of(outputs)
  if len(keys) == 1:
    return {keys[0]: "agreement"}
  if isinstance(outputs, dict):
    return {key: f"{key}_agreement" for key in keys}
  names = output_names if output_names and len(output_names) == len(keys) else [f"output_{key + 1}" for key in keys]
  return {key: f"{name}_agreement" for key, name in zip(keys, names, strict=True)}


def class_keys(outputs: Any, objectives: Sequence[Objective], container: Any) -> set:
  """Keys of the student's outputs that are class scores; None is the key of a single one.

  An output is class scores if an objective on class distributions reads it, or if its compiled loss is a categorical
  cross-entropy.

  Args:
    outputs: nested outputs, of which only the structure is read.
    objectives: the distiller's objectives.
    container: the model's `compiled_loss`, or None.
  """
  losses = zip(flat_keys_of(outputs), losses_by_output(container, outputs), strict=True)
  return read_as_classes(objectives, outputs) | {key for key, loss in losses if is_on_classes(loss)}


def agreements(batch: Batch, keys: set) -> dict[Any, tuple[tf.Tensor, tf.Tensor | None]]:
  """Results of `agreement` by output key, for those of the keys whose scores both models have; of the first teacher.

  Args:
    batch: the step's data, with one weight or None for each output.
    keys: see `class_keys`.
  """
  found, of_teacher = {}, first_outputs(batch.teacher)
  if of_teacher is None:
    return found
  for key in keys_of(batch.student.outputs):
    teacher, student = part_of(of_teacher.outputs, key), part_of(batch.student.outputs, key)
    if key in keys and teacher is not None:
      found[key] = agreement(teacher, student, part_of(batch.sample_weight, key))
  return {key: measured for key, measured in found.items() if measured is not None}


def agreement(
  teacher: tf.Tensor, student: tf.Tensor, sample_weight: tf.Tensor | None
) -> tuple[tf.Tensor, tf.Tensor | None] | None:
  """Compares the classes that both models choose.

  Args:
    teacher, student: float [batch, ..., classes].
    sample_weight: weight of this output, or None. Elements that are masked or of weight zero do not count; all others
      count equally.

  Returns:
    Pair of float32 [batch, ...], 1 where the choices agree, and of the same shape or None, 1 where an element counts;
    or None if these are not scores of the same classes.
  """
  shapes = teacher.shape, student.shape
  if any(shape.rank is None or shape.rank < 2 for shape in shapes) or shapes[0].rank != shapes[1].rank:
    return None
  if shapes[1][-1] in (None, 1) or not shapes[0].is_compatible_with(shapes[1]) or shapes[0][-1] != shapes[1][-1]:
    return None
  same = tf.cast(tf.equal(tf.argmax(teacher, -1), tf.argmax(student, -1)), tf.float32)
  weights = combined(sample_weight, mask_of(student))
  if weights is None:
    return same, None
  counts = tf.cast(with_rank(of_elements(weights, student), same.shape.rank) != 0, tf.float32)
  return same, tf.broadcast_to(counts, tf.shape(same))
