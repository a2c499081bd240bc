"""Assertions, inside a traced step, that its inputs are finite."""

import functools
import re
from typing import Any

import tensorflow as tf

# The parts of the assertion, each in brackets in a graph, and on a line in eager execution.
_MESSAGE = re.compile(r"(\w[\w ]* contain)[^\w-]*(nan|-?inf)\W*(?:b')?at index\W*(\d[\d, ]*)?")


def assert_all_finite(structure: Any, name: str) -> list[tf.Tensor]:
  """Asserts that floating tensors hold neither NaN nor infinity.

  The optimizer step must depend on the returned tensors so that a failure prevents it. XLA drops assertions: compiled
  steps are not checked.

  Args:
    structure: nested tensors, of which the floating ones are checked.
    name: name of the tensors in the message, a plural.

  Returns:
    Tensors to depend on. A failure raises `tf.errors.InvalidArgumentError`, whose cause `message_of` extracts.
  """
  checks = []
  for tensor in tf.nest.flatten(structure, expand_composites=True):
    if tf.is_tensor(tensor) and tensor.dtype.is_floating:
      is_finite = tf.math.is_finite(tensor)
      report = functools.partial(_report, tensor, is_finite, name)
      checks.append(tf.cond(tf.reduce_all(is_finite), lambda: True, report))
  return checks


def message_of(error: tf.errors.OpError) -> str | None:
  """The message of a failure of `assert_all_finite`, such as "teacher outputs contain NaN at index [3, 2]".

  Args:
    error: any error of a step.

  Returns:
    The message without the graph's operations and stack, or None for another error.
  """
  found = _MESSAGE.search(error.message)
  if found is None:
    return None
  words, value, index = found.groups()
  return f"{words} {value.replace('nan', 'NaN')} at index [{', '.join(re.findall('[0-9]+', index or ''))}]"


def _report(tensor: tf.Tensor, is_finite: tf.Tensor, name: str) -> bool:
  first = tf.argmax(tf.cast(tf.reshape(~is_finite, [-1]), tf.int32))
  shape = tf.shape(tensor, tf.int64)
  index = first // tf.math.cumprod(shape, exclusive=True, reverse=True) % shape
  value = tf.cast(tf.reshape(tensor, [-1])[first], tf.float32)
  tf.debugging.Assert(False, [f"{name} contain", value, "at index", index], summarize=-1)
  return False
