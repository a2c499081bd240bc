"""One objective's term of the loss: what it reads of both models' outputs, and how its values are weighted."""

import inspect

import tensorflow as tf

from tfkd.ops.element_weights import (
  at_positions,
  combined,
  mask_of,
  of_elements,
  of_examples,
  with_rank,
  without_dropped,
)
from tfkd.ops.reduction import mean_over_elements, num_examples


def term(objective, teacher, student, labels, sample_weight, options):
  """The mean over elements of an objective's values, each times the weight of its element.

  Args:
    objective: `tfkd.objectives.Objective`.
    teacher, student: pairs of a model's outputs and a dict from layer name to feature. The student's carry Keras masks.
    labels: nested labels, or None.
    sample_weight: one weight tensor or None per output of the student, nested as the outputs are; or None.
    options: dict of `training` and `step`, of which the objective's `call` gets those that it names.

  Returns:
    Pair of a float32 scalar, and of what the objective compares the student with, where weighted with zeros for
    elements of weight zero.
  """
  inputs = inputs_of(objective, teacher, student, labels)
  weights = _weights(objective, student, sample_weight)
  mean_weights = weights
  if weights is not None:
    reads_features = bool(objective.student_layers)
    inputs = tuple(_without_dropped(part, weights, reads_features) for part in inputs)
    if objective.relational:
      inputs, weights = _counted(inputs, weights, reads_features)
    if reads_features:
      options = {**options, "sample_weight": weights}
      mean_weights = None if objective.positions else of_examples(mean_weights)
  parameters = inspect.signature(objective.call).parameters
  values = objective(inputs, **{name: value for name, value in options.items() if name in parameters})
  if values is None or tf.nest.is_nested(values):
    raise TypeError(
      f"`call` of objective '{objective.name}' returned a {type(values).__name__}: return float32 [batch, ...], or a "
      "scalar where it compares examples."
    )
  values = tf.cast(values, tf.float32)
  return mean_over_elements(values, mean_weights, num_examples(inputs)), inputs[0]


def inputs_of(objective, teacher, student, labels):
  """What an objective is called on, of the outputs and features of both models and the labels."""
  key, name = objective.output_key, objective.name
  if labels is None and (objective.source == "labels" or objective.reads_labels):
    raise ValueError(f"objective '{name}' reads the labels, and the data has none.")
  if objective.teacher_layers:
    pair = (
      [teacher[1][layer] for layer in objective.teacher_layers],
      [student[1][layer] for layer in objective.student_layers],
    )
  elif objective.source == "labels":
    pair = pick(labels, key, "labels", name), pick(student[0], key, "student", name)
  else:
    pair = pick(teacher[0], key, "teacher", name), pick(student[0], key, "student", name)
  return (*pair, pick(labels, key, "labels", name)) if objective.reads_labels else pair


def pick(structure, key, owner, objective_name):
  """The one tensor that an objective reads of a model's outputs."""
  if not tf.nest.is_nested(structure):
    return structure
  keys = keys_of(structure)
  if key is None and len(keys) == 1:
    return structure[keys[0]]
  if key not in keys:
    raise ValueError(f"{owner} has several outputs, {keys}: objective '{objective_name}' got output={key!r}.")
  return structure[key]


def keys_of(structure):
  """Keys or indices of nested outputs; None is the key of a single output."""
  if not tf.nest.is_nested(structure):
    return [None]
  return list(structure) if isinstance(structure, dict) else list(range(len(structure)))


def flat_keys_of(structure):
  """The same, in the order of `tf.nest.flatten`."""
  return sorted(structure) if isinstance(structure, dict) else keys_of(structure)


def part_of(structure, key):
  """One output of a structure, or None where it has none of this key."""
  if structure is None or not tf.nest.is_nested(structure):
    return structure
  return structure[key] if key in keys_of(structure) else None


def _weights(objective, student, sample_weight):
  """Weights of the elements of the output that an objective reads, or of the positions of its features, or None."""
  outputs, features = student
  key, name = objective.output_key, objective.name
  if not objective.student_layers:
    output = pick(outputs, key, "student", name)
    weights = combined(
      None if sample_weight is None else pick(sample_weight, key, "sample_weight", name), mask_of(output)
    )
    return None if weights is None else of_elements(weights, output)
  masks = [mask_of(features[layer]) for layer in objective.student_layers]
  if key is not None and tf.nest.is_nested(outputs):
    weight = None if sample_weight is None else pick(sample_weight, key, "sample_weight", name)
    masks.append(mask_of(pick(outputs, key, "student", name)))
  else:
    flat = tf.nest.flatten(outputs)
    weight = None if sample_weight is None else _shared(tf.nest.flatten(sample_weight), flat)
    masks += [mask_of(flat[0])] if len(flat) == 1 else []
  return combined(weight, next((mask for mask in masks if mask is not None), None))


def _shared(weights, outputs):
  """The weight of what several outputs share: if they differ, the mean of each example's weights, 1 where none."""
  if all(weight is weights[0] for weight in weights):
    return weights[0]
  means = []
  for weight, output in zip(weights, outputs, strict=True):
    ones = tf.ones(tf.shape(output)[:1])
    means.append(ones if weight is None else of_examples(tf.cast(weight, tf.float32)))
  return tf.add_n(means) / len(means)


def _without_dropped(part, weights, reads_features):
  if not reads_features or tf.is_tensor(part):
    return without_dropped(part, weights)
  return [without_dropped(x, at_positions(weights, x)) for x in part]


def _counted(inputs, weights, reads_features):
  """Inputs and weights of a relational objective without what has weight zero: examples, tokens or pixels."""
  per_example = reads_features or weights.shape.rank == 1 or all(size == 1 for size in weights.shape[1:])
  if per_example:
    counts = of_examples(tf.cast(weights != 0, tf.float32)) > 0
    weights = tf.boolean_mask(weights, counts)
  else:
    elements = tf.shape(inputs[1])[:-1]
    counts = tf.broadcast_to(with_rank(weights, inputs[1].shape.rank - 1) != 0, elements)
    counts = tf.ensure_shape(counts, inputs[1].shape[:-1])
  return tf.nest.map_structure(lambda t: tf.boolean_mask(t, counts), inputs), weights
