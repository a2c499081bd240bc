"""Annotations of drawn house numbers: digits of pixels, digits in the crop, and the ink's colour."""

import numpy as np
import pytest

from tfkd.data import house_numbers


@pytest.fixture(scope="module")
def drawn():
  return house_numbers.draw_annotated(400, [2, 7])


def test_images_and_labels_are_those_of_draw(drawn):
  images, labels = house_numbers.draw(400, [2, 7])
  np.testing.assert_array_equal(drawn.images, images)
  np.testing.assert_array_equal(drawn.labels, labels)


def test_masks_and_digits_agree_with_the_labels(drawn):
  assert drawn.masks.shape == (400, 32, 32) and drawn.masks.dtype == np.uint8 and drawn.masks.max() == 10
  each = np.arange(400)
  assert drawn.present.shape == (400, 10) and drawn.present[each, drawn.labels].all()
  found = np.array([[(mask == digit + 1).any() for digit in range(10)] for mask in drawn.masks])
  assert found[each, drawn.labels].all()
  assert not (drawn.present & ~found).any()  # A digit that is inside has pixels.
  assert 0 < (found & (drawn.present == 0)).mean() < 0.1  # Some neighbours are cut off.
  # The digit of the label is in the middle.
  pairs = zip(drawn.masks, drawn.labels, strict=True)
  centres = [np.mean(np.nonzero(mask == label + 1), axis=1) for mask, label in pairs]
  np.testing.assert_allclose(np.median(centres, axis=0), [15.5, 15.5], atol=0.7)


def test_ink_of_the_masks_differs_from_the_background_as_the_colour_says(drawn):
  correct = []
  for image, mask, color in zip(drawn.images.astype(float), drawn.masks, drawn.colors, strict=True):
    difference = image[mask > 0].mean(axis=0) - image[mask == 0].mean(axis=0)
    signs = [(difference > 0).all(), (difference < 0).all()]
    found = signs.index(True) if any(signs) else 2 + difference.argmax()
    correct.append(found == color)
  # Light gradients and noise hide the smallest differences only.
  assert np.mean(correct) > 0.9
  assert set(drawn.colors) == set(range(len(house_numbers.COLORS)))
