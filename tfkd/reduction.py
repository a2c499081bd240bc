"""From one value for each example to one for the step: over examples, their weights, and replicas."""

import tensorflow as tf


def num_replicas():
  """Replicas that train together: int."""
  return tf.distribute.get_strategy().num_replicas_in_sync


def num_examples(x):
  """Length of the first axis of a batch's tensors: float32 scalar."""
  return tf.cast(tf.shape(tf.nest.flatten(x)[0])[0], tf.float32)


def share_of_global_batch(x):
  """This replica's examples over all replicas' examples: 1 on one device, and exact for an uneven last batch."""
  if num_replicas() == 1:
    return 1.0
  here = num_examples(x)
  everywhere = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, here)
  return here / everywhere


def mean_over_examples(values, sample_weight, examples):
  """Mean of an objective's values over the examples at hand, each times its weight.

  Args:
    values: float32 [batch, ...]; or a scalar, which compared examples have together and the mean weight multiplies.
    sample_weight: float [batch, ...], or None.
    examples: float32 scalar, how many were compared.

  Returns:
    float32 scalar; 0 for no examples.
  """
  if sample_weight is not None:
    sample_weight = tf.cast(sample_weight, tf.float32)
  if values.shape.rank == 0:
    # Without any examples it is arithmetic on nothing.
    value = tf.where(examples > 0, values, 0.0)
    if sample_weight is None:
      return value
    return value * tf.math.divide_no_nan(tf.reduce_sum(sample_weight), tf.cast(tf.size(sample_weight), tf.float32))
  values = _per_example(values)
  if sample_weight is not None:
    values *= _per_example(sample_weight)
  return tf.math.divide_no_nan(tf.reduce_sum(values), tf.cast(tf.size(values), tf.float32))


def _per_example(values):
  """[batch], the mean over any further axes."""
  return tf.reduce_mean(values, axis=list(range(1, values.shape.rank))) if values.shape.rank > 1 else values
