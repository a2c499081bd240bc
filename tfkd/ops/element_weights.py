"""Weights of the elements of a batch: sample weights and Keras masks, for outputs and for features."""

from typing import Any

import tensorflow as tf

from tfkd.ops.pooling import average_pool
from tfkd.ops.reduction import sum_over_replicas


def mask_of(tensor: Any) -> tf.Tensor | None:
  """The Keras mask of a tensor, bool [batch, ...], or None."""
  return getattr(tensor, "_keras_mask", None)


def combined(sample_weight: Any, mask: tf.Tensor | None) -> tf.Tensor | None:
  """Combines sample weights and a mask so that the mean of loss times weight equals Keras' reduction.

  Keras divides a weighted loss by the number of elements and a masked one by the number of valid elements: a mask
  weighs by elements / valid elements, counted over all replicas.

  Args:
    sample_weight: [batch, ...], or None.
    mask: bool [batch, ...], or None.

  Returns:
    float32 [batch, ...], or None if both are None.
  """
  weights = None if sample_weight is None else tf.cast(sample_weight, tf.float32)
  if weights is not None and weights.shape.rank == 0:
    raise ValueError("sample_weight must have one weight per example at least; got a scalar.")
  if mask is None:
    return weights
  valid = tf.cast(mask, tf.float32)
  counts = sum_over_replicas(tf.stack([tf.cast(tf.size(valid), tf.float32), tf.reduce_sum(valid)]))
  valid *= tf.math.divide_no_nan(counts[0], counts[1])
  if weights is None:
    return valid
  if weights.shape.rank > valid.shape.rank and weights.shape[-1] == 1:
    weights = tf.squeeze(weights, -1)
  return with_rank(weights, valid.shape.rank) * valid


def with_rank(tensor: tf.Tensor, rank: int) -> tf.Tensor:
  """The tensor with axes of length one appended, up to a rank."""
  missing = max(rank - tensor.shape.rank, 0)
  return tf.reshape(tensor, tf.concat([tf.shape(tensor), [1] * missing], 0)) if missing else tensor


def of_elements(weights: tf.Tensor, output: tf.Tensor) -> tf.Tensor:
  """Brings weights to the elements of an output, which are all its axes except the last.

  Args:
    weights: float32 [batch], [batch, 1] or of the elements' shape, with or without a last axis of length one.
    output: [batch, ..., channels].

  Returns:
    float32 [batch, ...], which broadcasts to the elements after `with_rank`.

  Raises:
    ValueError: the shapes do not fit.
  """
  elements = output.shape[:-1] if output.shape.rank != 1 else output.shape
  shape = weights.shape
  if shape.rank == elements.rank + 1 and shape[-1] == 1:
    weights = tf.squeeze(weights, -1)
  axes = zip(weights.shape, elements, strict=False)
  if weights.shape.rank > elements.rank or any(a not in (None, 1, b) and b is not None for a, b in axes):
    raise ValueError(
      f"sample_weight (or a Keras mask) of shape {shape} does not fit an output of shape {output.shape}: expected "
      f"weights of shape [batch] or {elements}."
    )
  return weights


def of_examples(weights: tf.Tensor) -> tf.Tensor:
  """float32 [batch], the mean of each example's weights."""
  return tf.reduce_mean(weights, list(range(1, weights.shape.rank))) if weights.shape.rank > 1 else weights


def at_positions(weights: tf.Tensor, feature: tf.Tensor) -> tf.Tensor:
  """Brings weights to the positions of a feature, which are its axes between the first and the last.

  At another resolution a position gets the mean weight of the elements that it covers: it counts if one of them does.

  Args:
    weights: float32 [batch], or [batch, ...] with as many axes of positions as the feature.
    feature: [batch, ..., channels]; a vector has no positions and gets each example's mean weight.

  Returns:
    float32 [batch, ...], with one axis less than the feature.

  Raises:
    ValueError: the weights' axes cannot be brought to the feature's.
  """
  positions = feature.shape[1:-1]
  while weights.shape.rank > 1 and weights.shape.rank > positions.rank + 1 and weights.shape[-1] == 1:
    weights = tf.squeeze(weights, -1)
  own = weights.shape[1:]
  if positions.rank == 0 or own.rank == 0 or all(size == 1 for size in own):
    return with_rank(of_examples(weights), positions.rank + 1)
  if own.is_compatible_with(positions):
    return weights
  is_known = own.is_fully_defined() and positions.is_fully_defined()
  if is_known and own.rank == positions.rank == 2:
    return tf.squeeze(average_pool(tf.expand_dims(weights, -1), tuple(positions)), -1)
  if is_known and own.rank == positions.rank == 1:
    return average_pool(weights[:, None, :, None], (1, positions[0]))[:, 0, :, 0]
  if is_known and positions.rank == 1 and own.num_elements() == positions[0]:  # A map's positions in one row.
    return tf.reshape(weights, [-1, positions[0]])
  raise ValueError(
    f"weights of shape {weights.shape} cannot be brought to the positions of a feature of shape {feature.shape}: give "
    "weights of shape [batch], or tap a layer of as many axes, of a model built for a fixed size."
  )


def without_dropped(tensor: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
  """Replaces elements of weight zero by zeros, so that their values change neither a loss nor a gradient.

  Args:
    tensor: [batch, ...]; unchanged if it has fewer axes than the weights.
    weights: float32 [batch, ...].
  """
  if tensor.shape.rank is None or tensor.shape.rank < weights.shape.rank:
    return tensor
  return tf.where(with_rank(weights, tensor.shape.rank) != 0, tensor, tf.zeros_like(tensor))


def masked_mean(feature: tf.Tensor, weights: tf.Tensor | None) -> tf.Tensor:
  """Mean of a feature over the positions whose weight is not zero.

  Args:
    feature: float [batch, ..., channels].
    weights: see `at_positions`; None for the plain mean.

  Returns:
    [batch, channels]; 0 where no position counts.
  """
  axes = list(range(1, feature.shape.rank - 1))
  if weights is None:
    return tf.reduce_mean(feature, axes)
  counts = tf.expand_dims(tf.cast(at_positions(weights, feature) != 0, feature.dtype), -1)
  counts = tf.broadcast_to(counts, tf.concat([tf.shape(feature)[:-1], [1]], 0))
  return tf.math.divide_no_nan(tf.reduce_sum(feature * counts, axes), tf.reduce_sum(counts, axes))


def by_output(sample_weight: Any, outputs: Any, container: Any) -> Any:
  """Nests sample weights like the outputs, with the number of axes that Keras' losses need.

  Args:
    sample_weight: as given to `fit`, or None.
    outputs: nested outputs.
    container: the model's `compiled_loss`.

  Returns:
    A weight or None for each output, nested like the outputs; None without weights.
  """
  if sample_weight is None:
    return None
  by_output = container._conform_to_outputs(outputs, sample_weight)
  flat = zip(tf.nest.flatten(by_output), tf.nest.flatten(outputs), strict=True)
  shared, fitting = {}, []
  for weight, output in flat:
    key = id(weight), output.shape.rank
    if weight is not None and key not in shared:
      shared[key] = with_rank(weight, output.shape.rank - 1)
    fitting.append(None if weight is None else shared[key])
  return tf.nest.pack_sequence_as(outputs, fitting)


def without_masks(outputs: Any, sample_weight: Any) -> tuple[Any, Any]:
  """Turns the Keras masks of outputs into weights.

  Keras would divide by one replica's valid elements, which gives NaN if a batch has none.
  """
  flat = tf.nest.flatten(outputs)
  if all(mask_of(tensor) is None for tensor in flat):
    return outputs, sample_weight
  weights = [None] * len(flat) if sample_weight is None else tf.nest.flatten(sample_weight)
  weights = [combined(weight, mask_of(tensor)) for weight, tensor in zip(weights, flat, strict=True)]
  return (
    tf.nest.map_structure(tf.identity, outputs),
    tf.nest.pack_sequence_as(outputs, weights),
  )
