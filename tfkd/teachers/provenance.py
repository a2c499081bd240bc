"""Which teacher and which data a cache is of."""

import numpy as np
import tensorflow as tf

from tfkd.storage.fingerprints import fingerprints
from tfkd.teachers.cache_format import specs_of_inputs


def check_order(dataset):
  """Begins a data set twice.

  Raises:
    ValueError: it is empty, or other examples come first the second time.
  """
  specs_of_inputs(dataset)
  first, second = (
    [fingerprints(inputs).numpy() for inputs in inputs_of(dataset.take(1)) if len(tf.nest.flatten(inputs)[0])]
    for _ in range(2)
  )
  if not first:
    raise ValueError("the data set has no examples.")
  if not second or not np.array_equal(first[0], second[0]):
    raise ValueError(
      "the data set gives other examples when it is iterated again, and outputs would be stored for what no one sees "
      "twice: cache it before it is shuffled (or shuffle with reshuffle_each_iteration=False) and before random "
      "augmentation, for which `tfkd.data.batches` has `views`."
    )


def differences(found, expected):
  """What differs between two descriptions, in words; empty where nothing does.

  Args:
    found, expected: dicts of JSON values.
  """
  names = [name for name in expected if found.get(name) != expected[name]]
  return "; ".join(
    f"{name} differ" if name == "weights" else f"{name}: {found.get(name)} there, {expected[name]} now"
    for name in names
  )


def first_difference(dataset, stored):
  """Position of the first example whose fingerprint is not the stored one, or that the other lacks; None for none."""
  seen = 0
  for inputs in inputs_of(dataset):
    found, expected = fingerprints(inputs).numpy(), stored[seen : seen + len(tf.nest.flatten(inputs)[0])]
    wrong = np.flatnonzero(found[: len(expected)] != expected)
    if len(wrong):
      return seen + int(wrong[0])
    if len(expected) < len(found):
      return seen + len(expected)
    seen += len(found)
  return seen if seen < len(stored) else None


def inputs_of(dataset):
  """Yields the (nested) inputs of each batch."""
  for element in dataset:
    yield element[0] if isinstance(element, tuple) else element
