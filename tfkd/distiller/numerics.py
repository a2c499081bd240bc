"""A check, in the graph, that numbers from outside are finite."""

import functools

import tensorflow as tf

NOT_FINITE = "a number is not finite"


def checks_of_finite(structure, name):
  """Tensors that end the step with an error where a number is NaN or infinite, and say where it is.

  The optimizer's step must depend on these checks so that a failure prevents it. XLA drops assertions: compiled steps
  are not checked.

  Args:
    structure: nested tensors, of which floating ones are looked at.
    name: what they are, for the message.

  Returns:
    List of tensors. The error is `tf.errors.InvalidArgumentError`, with the first such number and its position.
  """
  checks = []
  for tensor in tf.nest.flatten(structure):
    if tf.is_tensor(tensor) and tensor.dtype.is_floating:
      is_finite = tf.math.is_finite(tensor)
      report = functools.partial(_report, tensor, is_finite, name)
      checks.append(tf.cond(tf.reduce_all(is_finite), lambda: True, report))
  return checks


def _report(tensor, is_finite, name):
  first = tf.argmax(tf.cast(tf.reshape(~is_finite, [-1]), tf.int32))
  shape = tf.shape(tensor, tf.int64)
  position = first // tf.math.cumprod(shape, exclusive=True, reverse=True) % shape
  tf.debugging.Assert(
    False, [f"{name}: {NOT_FINITE}; position (example first) and value:", position, tf.reshape(tensor, [-1])[first]]
  )
  return False
