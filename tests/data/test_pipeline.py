"""Arrays to batches."""

import numpy as np
import pytest

from tfkd import data

IMAGES = np.random.default_rng(0).integers(0, 256, (50, 32, 32, 3)).astype(np.uint8)
LABELS = np.arange(50, dtype=np.int32)


def _all(dataset):
  batches = list(dataset.as_numpy_iterator())
  return np.concatenate([x for x, _ in batches]), np.concatenate([y for _, y in batches])


def test_keeps_every_example_in_order_scaled_to_one():
  images, labels = _all(data.batches(IMAGES, LABELS, 16))
  np.testing.assert_allclose(images, IMAGES / np.float32(255))
  np.testing.assert_array_equal(labels, LABELS)
  assert images.dtype == np.float32


def test_shuffles_anew_each_epoch_and_the_same_for_a_seed():
  dataset, same = (data.batches(IMAGES, LABELS, 16, shuffle_seed=3) for _ in range(2))
  first, second = _all(dataset)[1], _all(dataset)[1]
  assert set(first) == set(LABELS) and (first != second).any()
  np.testing.assert_array_equal(first, _all(same)[1])
  np.testing.assert_array_equal(second, _all(same)[1])
  assert (_all(data.batches(IMAGES, LABELS, 16, shuffle_seed=4))[1] != first).any()


def test_further_inputs_stay_with_their_image():
  logits = LABELS[:, None] * np.ones((1, 10), np.float32)
  for (images, rows), labels in data.batches((IMAGES, logits), LABELS, 7, shuffle_seed=0).as_numpy_iterator():
    np.testing.assert_array_equal(rows[:, 0], labels)
    np.testing.assert_allclose(images, IMAGES[labels] / np.float32(255))


@pytest.mark.parametrize("flip", [False, True])
def test_augmented_images_are_shifted_or_mirrored_crops(flip):
  ramp = np.broadcast_to(np.arange(32, dtype=np.uint8)[None, None, :, None] * 4, (200, 32, 32, 3))
  images, _ = _all(data.batches(ramp, np.zeros(200), 50, shuffle_seed=0, augment=True, flip=flip))
  columns = np.round(images[:, 16, 8:24, 0] * 255 / 4)
  direction = np.sign(np.diff(columns).mean(axis=1))
  shift = np.where(direction > 0, columns[:, 0] - 8, 23 - columns[:, 0])
  assert set(shift) == set(range(-4, 5))
  assert (direction < 0).mean() == pytest.approx(0.5 if flip else 0.0, abs=0.12)


def test_augmentation_differs_between_epochs():
  dataset = data.batches(IMAGES, LABELS, 50, augment=True)
  assert (_all(dataset)[0] != _all(dataset)[0]).any()


@pytest.mark.parametrize("batch_size", [0, 51])
def test_a_batch_larger_than_the_data_is_refused(batch_size):
  with pytest.raises(ValueError, match=f"between 1 and the number of examples, 50; got {batch_size}"):
    data.batches(IMAGES, LABELS, batch_size)


def test_mismatched_arguments_are_refused():
  with pytest.raises(ValueError, match=r"must have one length; got \[49, 50\]"):
    data.batches(IMAGES, LABELS[:49], 8)
  with pytest.raises(ValueError, match="do not belong to outputs computed before"):
    data.batches((IMAGES, LABELS), LABELS, 8, augment=True)


def test_unknown_names_splits_and_limits_are_refused(tmp_path):
  with pytest.raises(ValueError, match="unknown data set 'mnist': expected one of house_numbers, svhn, cifar10"):
    data.load("mnist", "train")
  with pytest.raises(ValueError, match="house_numbers has no split 'extra'"):
    data.load("house_numbers", "extra")
  data.house_numbers.write(tmp_path, sizes={"train": 30, "test": 10})
  with pytest.raises(ValueError, match="limit must be between 1 and 30"):
    data.load("house_numbers", "train", data_dir=str(tmp_path), limit=31)
  _, labels = data.load_arrays("house_numbers", "train", data_dir=str(tmp_path), limit=12)
  assert len(labels) == 12
  ((images, _),) = data.load("house_numbers", "test", data_dir=str(tmp_path), batch_size=10).as_numpy_iterator()
  assert images.shape == (10, 32, 32, 3) and images.max() <= 1
