"""Comparisons of a cache with a teacher and with data."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tfkd.storage.fingerprints import fingerprints
from tfkd.teachers.cache_format import specs_of_inputs


def check_order(dataset: tf.data.Dataset) -> None:
  """Checks that a data set starts with the same examples in each iteration.

  Raises:
    ValueError: the data set is empty, or starts with other examples the second time.
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
      "the data set gives other examples when it is iterated again, so stored outputs would not belong to them: cache "
      "it before it is shuffled (or shuffle with reshuffle_each_iteration=False) and before random augmentation, or "
      "use fixed views, as in tfkd.data.Augment(function, views=8)."
    )


def differences(found: Mapping[str, Any], expected: Mapping[str, Any]) -> str:
  """Describes the entries of two descriptions of JSON values that differ; empty if they are equal."""
  names = [name for name in expected if found.get(name) != expected[name]]
  return "; ".join(
    f"{name} differ" if name == "weights" else f"{name}: {found.get(name)} there, {expected[name]} now"
    for name in names
  )


def first_difference(dataset: tf.data.Dataset, stored: np.ndarray) -> int | None:
  """Returns the position of the first example whose fingerprint differs from the stored one, or that one side lacks.

  None if data and stored fingerprints are equal.
  """
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


def inputs_of(dataset: tf.data.Dataset) -> Iterator[Any]:
  """Yields the (nested) inputs of each batch."""
  for element in dataset:
    yield element[0] if isinstance(element, tuple) else element
