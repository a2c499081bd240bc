"""Fingerprints of examples, by which stored outputs are matched with the inputs that they were computed from."""

from typing import Any

import tensorflow as tf

_MISMATCH = (
  "inputs and cached teacher outputs do not belong together: expected the data set that was cached, in its order and "
  "with its scaling and augmentation. Give it as it was cached, or write another cache. First wrong example:"
)


def fingerprints(inputs: Any) -> tf.Tensor:
  """Computes a fingerprint of the bytes of each example.

  FarmHash Fingerprint64, which is the same on all machines. Different examples share one with a probability of 2^-64.
  Types and shapes are not included.

  Args:
    inputs: dense tensors [batch, ...] of any type, which may be nested in tuples and dicts.

  Returns:
    int64 [batch].
  """
  parts = [tf.fingerprint(tf.convert_to_tensor(part)) for part in tf.nest.flatten(inputs)]
  return tf.bitcast(parts[0] if len(parts) == 1 else tf.fingerprint(tf.concat(parts, axis=1)), tf.int64)


def assert_same_examples(inputs: Any, expected: Any, positions: tf.Tensor) -> tf.Operation | None:
  """Checks a batch of inputs against the fingerprints that were stored with their teacher's outputs.

  Args:
    inputs: nested tensors [batch, ...].
    expected: int64 [batch].
    positions: int [batch], positions of the examples in the data set, for the error message.

  Returns:
    Operation that raises `tf.errors.InvalidArgumentError` if an example differs; None in eager mode, where the check
    has already run.
  """
  wrong = fingerprints(inputs) != expected
  first = tf.gather(positions, tf.argmax(tf.cast(wrong, tf.int32)))
  return tf.debugging.Assert(~tf.reduce_any(wrong), [_MISMATCH, first])
