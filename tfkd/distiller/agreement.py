"""Agreement: the share of decisions, of classes or of independent labels, that student and teacher share."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfkd.distiller.compilation import losses_by_output
from tfkd.distiller.model_checks import read_as_classes, read_as_labels
from tfkd.distiller.teachers import first_outputs
from tfkd.features.outputs import flat_keys_of, keys_of, part_of
from tfkd.losses import TopK
from tfkd.objectives import Batch, Objective
from tfkd.ops.element_weights import combined, mask_of, of_elements, with_rank
from tfkd.ops.keras_losses import is_on_classes


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


def kinds_of(outputs: Any, objectives: Sequence[Objective], container: Any) -> dict[Any, str]:
  """Which of the student's outputs are decisions: "classes" or "labels" by output key; None is the key of a single one.

  An output is scores of classes if an objective on class distributions reads it, or if its compiled loss is a
  categorical cross-entropy; else logits of independent labels if `BinarySoftTargets` reads it.

  Args:
    outputs: nested outputs, of which only the structure is read.
    objectives: the distiller's objectives.
    container: the model's `compiled_loss`, or None.
  """
  losses = dict(zip(flat_keys_of(outputs), losses_by_output(container, outputs), strict=True))
  classes = read_as_classes(objectives, outputs) | {key for key, loss in losses.items() if is_on_classes(loss)}
  labels = read_as_labels(objectives, outputs)
  return {key: "classes" if key in classes else "labels" for key in classes | labels}


def agreements(batch: Batch, kinds: dict[Any, str]) -> dict[Any, tuple[tf.Tensor, tf.Tensor | None]]:
  """Results of `agreement` by output key, for those of the outputs whose scores both models have; of the first teacher.

  Args:
    batch: the step's data, with one weight or None for each output.
    kinds: see `kinds_of`.
  """
  found, of_teacher = {}, first_outputs(batch.teacher)
  if of_teacher is None:
    return found
  for key in keys_of(batch.student.outputs):
    teacher, student = part_of(of_teacher.outputs, key), part_of(batch.student.outputs, key)
    if key in kinds and teacher is not None:
      found[key] = agreement(teacher, student, part_of(batch.sample_weight, key), kinds[key])
  return {key: measured for key, measured in found.items() if measured is not None}


def agreement(
  teacher: tf.Tensor, student: tf.Tensor, sample_weight: tf.Tensor | None, kind: str = "classes"
) -> tuple[tf.Tensor, tf.Tensor | None] | None:
  """Compares the classes, or the independent labels, that both models choose.

  Args:
    teacher, student: float [batch, ..., classes], or [batch, ..., labels]; also [batch] for one label. Of the teacher
      also its largest logits.
    sample_weight: weight of this output, or None. Elements that are masked or of weight zero do not count; all others
      count equally.
    kind: "classes", of which each model chooses the one of the highest score; or "labels", of which it chooses those
      with positive logits.

  Returns:
    Pair of float32 [batch, ...], 1 where the choices of class agree, or the share of labels on which they
    agree, and of the same shape or None, 1 where an element counts; or None if these are not scores of the same
    classes or labels.
  """
  same = _same(teacher, student, kind)
  if same is None:
    return None
  weights = combined(sample_weight, mask_of(student))
  if weights is None:
    return same, None
  counts = tf.cast(with_rank(of_elements(weights, student), same.shape.rank) != 0, tf.float32)
  return same, tf.broadcast_to(counts, tf.shape(same))


def _same(teacher: tf.Tensor | TopK, student: tf.Tensor, kind: str) -> tf.Tensor | None:
  """Compares choices as `agreement` does, without weights."""
  if isinstance(teacher, TopK):
    if teacher.shape.rank != student.shape.rank:
      return None
    return tf.cast(tf.equal(tf.gather(teacher.classes, 0, axis=-1), tf.argmax(student, -1, tf.int32)), tf.float32)
  if kind == "labels" and teacher.shape.rank == student.shape.rank == 1:
    teacher, student = teacher[:, None], student[:, None]
  shapes = teacher.shape, student.shape
  if any(shape.rank is None or shape.rank < 2 for shape in shapes) or shapes[0].rank != shapes[1].rank:
    return None
  if (
    shapes[1][-1] is None
    or kind == "classes"
    and shapes[1][-1] == 1
    or not shapes[0].is_compatible_with(shapes[1])
    or shapes[0][-1] != shapes[1][-1]
  ):
    return None
  if kind == "labels":
    return tf.reduce_mean(tf.cast(tf.equal(teacher > 0, student > 0), tf.float32), axis=-1)
  return tf.cast(tf.equal(tf.argmax(teacher, -1), tf.argmax(student, -1)), tf.float32)
