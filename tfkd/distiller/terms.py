"""One objective's term of the loss: its inputs, per-element losses, and their weighted mean."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfkd.distiller.teachers import for_objective
from tfkd.features.outputs import pick
from tfkd.losses import TopK
from tfkd.objectives import Batch, Objective
from tfkd.ops.element_weights import (
  combined,
  mask_of,
  of_elements,
  of_examples,
  with_rank,
  without_dropped,
)
from tfkd.ops.reduction import mean_over_elements, num_examples


def terms_of(objectives: Sequence[Objective], batch: Batch) -> tuple[dict[str, tf.Tensor], Any]:
  """Computes the terms of all objectives.

  Args:
    objectives: objectives with different names.
    batch: the step's data, with one weight tensor or None for each output of the student, or None.

  Returns:
    Pair of the terms by name, and of the teacher's outputs and features that take part in the step: with zeros for
    elements of weight zero.
  """
  terms, compared = {}, []
  for objective in objectives:
    terms[objective.name], inputs = term(objective, batch)
    compared += [inputs[0]] if objective.reads_teacher else []
  masks = [mask_of(tensor) for tensor in tf.nest.flatten(batch.student)]
  has_weights = batch.sample_weight is not None or any(mask is not None for mask in masks)
  return terms, compared if has_weights else batch.teacher


def term(objective: Objective, batch: Batch) -> tuple[tf.Tensor, tuple]:
  """The mean over elements of an objective's losses, each times the weight of its element.

  Args:
    objective: `tfkd.objectives.Objective`.
    batch: see `terms_of`.

  Returns:
    Pair of a float32 scalar, and of the objective's inputs, with zeros for elements of weight zero.
  """
  batch = for_objective(objective, batch)
  inputs, weights = objective.inputs(batch), _weights(objective, batch)
  mean_weights = None
  if weights is not None:
    mean_weights = weights
    reads_features = bool(objective.student_layers)
    inputs = tuple(_without_dropped(part, weights, objective) for part in inputs)
    if objective.relational:
      inputs, weights = _counted(inputs, weights, reads_features)
    if reads_features:
      mean_weights = None if objective.positions else of_examples(mean_weights)
  values = objective(inputs, **objective.options(batch._replace(sample_weight=weights)))
  if values is None or tf.nest.is_nested(values):
    raise TypeError(
      f"`call` of objective '{objective.name}' returned a {type(values).__name__}: return float32 [batch, ...], or a "
      "scalar if it compares examples."
    )
  values = tf.cast(values, tf.float32)
  return mean_over_elements(values, mean_weights, num_examples(inputs)), inputs


def _weights(objective: Objective, batch: Batch) -> tf.Tensor | None:
  """Weights of the elements of the output that an objective reads, or of the positions of its features, or None."""
  outputs, features = batch.student
  key, name, sample_weight = objective.output_key, objective.name, batch.sample_weight
  if not objective.student_layers:
    output = objective.student_output(batch)
    weight = None if sample_weight is None else pick(sample_weight, key, "sample_weight", name)
    weights = combined(weight, mask_of(output))
    return None if weights is None else of_elements(weights, output)
  masks = [objective.mask_of(features[layer]) for layer in objective.student_layers]
  if key is not None and tf.nest.is_nested(outputs):
    weight = None if sample_weight is None else pick(sample_weight, key, "sample_weight", name)
    masks.append(mask_of(objective.student_output(batch)))
  else:
    flat = tf.nest.flatten(outputs)
    weight = None if sample_weight is None else _shared(tf.nest.flatten(sample_weight), flat)
    masks += [mask_of(flat[0])] if len(flat) == 1 else []
  return combined(weight, next((mask for mask in masks if mask is not None), None))


def _shared(weights: list[Any], outputs: list[tf.Tensor]) -> tf.Tensor:
  """The weight of a feature that several outputs share.

  Returns:
    The outputs' common weight; if they differ, the mean of each example's weights, where an output without weights
    counts 1.
  """
  if all(weight is weights[0] for weight in weights):
    return weights[0]
  means = []
  for weight, output in zip(weights, outputs, strict=True):
    ones = tf.ones(tf.shape(output)[:1])
    means.append(ones if weight is None else of_examples(tf.cast(weight, tf.float32)))
  return tf.add_n(means) / len(means)


def _without_dropped(part: Any, weights: tf.Tensor, objective: Objective) -> Any:
  if isinstance(part, TopK):
    return TopK(*(without_dropped(tensor, weights) for tensor in (part.values, part.classes, part.log_rest)))
  if not objective.student_layers or tf.is_tensor(part):
    return without_dropped(part, weights)
  return [objective.without_dropped(feature, weights) for feature in part]


def _counted(inputs: tuple, weights: tf.Tensor, reads_features: bool) -> tuple[tuple, tf.Tensor]:
  """Removes elements of weight zero (examples, tokens or pixels) from inputs and weights of a relational objective."""
  per_example = reads_features or weights.shape.rank == 1 or all(size == 1 for size in weights.shape[1:])
  if per_example:
    counts = of_examples(tf.cast(weights != 0, tf.float32)) > 0
    weights = tf.boolean_mask(weights, counts)
  else:
    elements = tf.shape(inputs[1])[:-1]
    counts = tf.broadcast_to(with_rank(weights, inputs[1].shape.rank - 1) != 0, elements)
    counts = tf.ensure_shape(counts, inputs[1].shape[:-1])
  return tf.nest.map_structure(lambda t: tf.boolean_mask(t, counts), inputs), weights
