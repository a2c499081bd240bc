"""Agreement: the share of decisions on which student and teacher choose the same class."""

import tensorflow as tf

from tfkd.distiller.compilation import is_on_classes, losses_by_output
from tfkd.distiller.model_checks import read_as_classes
from tfkd.features.outputs import flat_keys_of, keys_of, part_of
from tfkd.ops.element_weights import combined, mask_of, of_elements, with_rank


def names_of(outputs, output_names):
  """The metric's name by key of an output: "agreement" of a single one, else "<output>_agreement".

  Args:
    outputs: nested outputs, of which only the structure counts.
    output_names: names of the flattened outputs, or None for their positions.
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


def class_keys(outputs, objectives, container):
  """Keys of the student's outputs that are class scores; None is the key of a single one.

  An objective on class distributions reads them, or their compiled loss is a categorical cross-entropy.

  Args:
    outputs: nested outputs, of which only the structure counts.
    objectives: list of `Objective`.
    container: the model's `compiled_loss`, or None.
  """
  losses = zip(flat_keys_of(outputs), losses_by_output(container, outputs), strict=True)
  return read_as_classes(objectives, outputs) | {key for key, loss in losses if is_on_classes(loss)}


def agreements(teacher_outputs, student_outputs, sample_weight, keys):
  """What `agreement` gives for each of the keys of which both models have scores, as a dict."""
  found = {}
  for key in keys_of(student_outputs):
    teacher, student = part_of(teacher_outputs, key), part_of(student_outputs, key)
    if key in keys and teacher is not None:
      found[key] = agreement(teacher, student, part_of(sample_weight, key))
  return {key: measured for key, measured in found.items() if measured is not None}


def agreement(teacher, student, sample_weight):
  """Whether the choices agree, and which of them count.

  Args:
    teacher, student: float [batch, ..., classes].
    sample_weight: weight of this output, or None. Elements of weight zero, and those that a Keras mask leaves out, do
      not count; all others count alike.

  Returns:
    Pair of float32 [batch, ...], and of the same shape or None; or None where these are no scores of the same classes.
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
