"""Reduces per-example losses to one scalar per step, honouring sample weights and replicas."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf


def num_replicas() -> int:
  """Number of replicas that train together."""
  return tf.distribute.get_strategy().num_replicas_in_sync


def num_examples(x: Any) -> tf.Tensor:
  """Length of the first axis of a batch's tensors: float32 scalar."""
  return tf.cast(tf.shape(tf.nest.flatten(x, expand_composites=True)[0])[0], tf.float32)


def sum_over_replicas(tensor: tf.Tensor) -> tf.Tensor:
  """The sum of the tensors of all replicas; the tensor itself on one device."""
  if num_replicas() == 1:
    return tensor
  return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, tensor)


def sum_in_order(scalars: Sequence[tf.Tensor]) -> tf.Tensor:
  """Sums in a fixed order: Grappler may reassociate chained additions differently at each trace."""
  return tf.reduce_sum(tf.stack(scalars))


def share_of_global_batch(x: Any) -> float | tf.Tensor:
  """This replica's examples over those of all replicas: 1 on one device, and exact for an uneven last batch."""
  if num_replicas() == 1:
    return 1.0
  here = num_examples(x)
  return here / sum_over_replicas(here)


def mean_over_elements(values: tf.Tensor, weights: tf.Tensor | None, examples: tf.Tensor) -> tf.Tensor:
  """Mean of an objective's losses over the elements of a replica, each times its weight.

  Args:
    values: float32 [batch, ...]; or a scalar loss of the whole batch (relational objectives), which is scaled by the
      mean sample weight.
    weights: float32 [batch, ...] or None. An axis that only one of values and weights has is averaged over or
      broadcast along.
    examples: float32 scalar, the number of examples that were compared.

  Returns:
    float32 scalar; 0 without examples.
  """
  if values.shape.rank == 0:
    value = tf.where(examples > 0, values, 0.0)  # An empty shard would give NaN.
    return value if weights is None else value * tf.math.divide_no_nan(tf.reduce_sum(weights), _size(weights))
  if weights is not None:
    if weights.shape.rank > values.shape.rank:
      weights = tf.reduce_mean(weights, list(range(values.shape.rank, weights.shape.rank)))
    missing = values.shape.rank - weights.shape.rank
    values *= tf.reshape(weights, tf.concat([tf.shape(weights), [1] * missing], 0)) if missing else weights
  return tf.math.divide_no_nan(tf.reduce_sum(values), _size(values))


def _size(tensor: tf.Tensor) -> tf.Tensor:
  return tf.cast(tf.size(tensor), tf.float32)
