"""Fingerprints identify examples by their bytes."""

import numpy as np
import pytest
import tensorflow as tf

from tfkd.storage.fingerprints import assert_same_examples, fingerprints

IMAGES = np.random.default_rng(0).uniform(size=(5, 3, 2)).astype(np.float32)


def test_fingerprint_depends_on_each_example_alone():
  found = fingerprints(IMAGES).numpy()
  assert found.dtype == np.int64 and found.shape == (5,) and len(set(found)) == 5
  np.testing.assert_array_equal(fingerprints(IMAGES[::-1]), found[::-1])
  np.testing.assert_array_equal(tf.function(fingerprints)(IMAGES), found)
  changed = IMAGES.copy()
  changed[2, 0, 0] = np.nextafter(changed[2, 0, 0], 2)
  assert (fingerprints(changed).numpy() != found).tolist() == [False, False, True, False, False]


def test_fingerprint_covers_every_part_of_nested_inputs():
  ids = np.arange(5)
  found = fingerprints({"image": IMAGES, "id": ids}).numpy()
  other = ids.copy()
  other[1] = 9
  assert (fingerprints({"image": IMAGES, "id": other}).numpy() != found).tolist() == [False, True, False, False, False]
  assert (fingerprints((IMAGES, ids)).numpy() != fingerprints((IMAGES, IMAGES)).numpy()).all()


def test_first_example_that_differs_is_named():
  expected = fingerprints(IMAGES)
  assert_same_examples(IMAGES, expected, tf.range(5))
  changed = IMAGES.copy()
  changed[3:] += 1
  with pytest.raises(tf.errors.InvalidArgumentError, match=r"do not belong together.*\n?.*13"):
    assert_same_examples(changed, expected, 10 + tf.range(5))
