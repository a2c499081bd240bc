"""From one value for each element to one for the step: over elements, their weights, and replicas."""

import tensorflow as tf


def num_replicas():
  """Replicas that train together: int."""
  return tf.distribute.get_strategy().num_replicas_in_sync


def num_examples(x):
  """Length of the first axis of a batch's tensors: float32 scalar."""
  return tf.cast(tf.shape(tf.nest.flatten(x)[0])[0], tf.float32)


def sum_over_replicas(tensor):
  """The sum of all replicas' tensors; the tensor itself on one device."""
  if num_replicas() == 1:
    return tensor
  return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, tensor)


def share_of_global_batch(x):
  """This replica's examples over all replicas' examples: 1 on one device, and exact for an uneven last batch."""
  if num_replicas() == 1:
    return 1.0
  here = num_examples(x)
  return here / sum_over_replicas(here)


def mean_over_elements(values, weights, examples):
  """Mean of an objective's values over the elements at hand, each times its weight.

  Args:
    values: float32 [batch, ...]; or a scalar, which compared examples have together and the mean weight multiplies.
    weights: float32 [batch, ...] or None. Axes that only one of the two has are averaged over or broadcast along.
    examples: float32 scalar, how many were compared.

  Returns:
    float32 scalar; 0 for no examples.
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


def _size(tensor):
  return tf.cast(tf.size(tensor), tf.float32)
