"""Arrays to batches."""

import functools

import numpy as np
import pytest

from tfkd import data
from tfkd.data.augment import padded_crop

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
  images, _ = _all(
    data.batches(ramp, np.zeros(200), 50, shuffle_seed=0, augment=functools.partial(padded_crop, flip=flip))
  )
  columns = np.round(images[:, 16, 8:24, 0] * 255 / 4)
  direction = np.sign(np.diff(columns).mean(axis=1))
  shift = np.where(direction > 0, columns[:, 0] - 8, 23 - columns[:, 0])
  assert set(shift) == set(range(-4, 5))
  assert (direction < 0).mean() == pytest.approx(0.5 if flip else 0.0, abs=0.12)


def test_augmentation_differs_between_epochs():
  dataset = data.batches(IMAGES, LABELS, 50, augment=padded_crop)
  assert (_all(dataset)[0] != _all(dataset)[0]).any()


def test_a_view_of_an_example_is_the_same_whenever_it_is_shown():
  in_order = _all(data.batches(IMAGES, LABELS, 16, augment=padded_crop, views=3))
  np.testing.assert_array_equal(in_order[1], np.tile(LABELS, 3))
  views = in_order[0].reshape(3, 50, 32, 32, 3)
  assert all((views[a] != views[b]).any(axis=(1, 2, 3)).mean() > 0.9 for a, b in ((0, 1), (0, 2), (1, 2)))
  of_two, _ = _all(data.batches(IMAGES, LABELS, 50, augment=padded_crop, views=2))
  np.testing.assert_array_equal(of_two, in_order[0][:100])
  dataset = data.batches(IMAGES, LABELS, 7, augment=padded_crop, views=3, shuffle_seed=5)
  shown = np.zeros((50, 3), int)
  for _ in range(8):
    images, labels = _all(dataset)
    assert sorted(labels) == list(LABELS)
    is_view = (images == views[:, labels]).all(axis=(2, 3, 4))  # [views, n]
    assert is_view.any(axis=0).all()
    shown[labels] += is_view.T
  assert (shown > 0).sum() > 130  # Of 150; an example's views are drawn independently.


def test_outputs_of_each_view_stay_with_their_pixels():
  rows = np.arange(150, dtype=np.float32)[:, None]
  features = {"layer": np.arange(150)}
  in_order, _ = _all(data.batches(IMAGES, LABELS, 16, augment=padded_crop, views=3))
  dataset = data.batches((IMAGES, (rows, features)), LABELS, 16, augment=padded_crop, views=3, shuffle_seed=2)
  for (images, (row, feature)), labels in dataset.as_numpy_iterator():
    np.testing.assert_array_equal(row[:, 0], feature["layer"])
    np.testing.assert_array_equal(row[:, 0] % 50, labels)
    np.testing.assert_array_equal(images, in_order[feature["layer"]])


def test_labels_become_distributions_smoothed_as_asked():
  _, labels = _all(data.batches(IMAGES, LABELS % 4, 16, num_classes=4))
  np.testing.assert_array_equal(labels, np.eye(4)[LABELS % 4])
  _, labels = _all(data.batches(IMAGES, LABELS % 4, 16, num_classes=4, label_smoothing=0.2))
  np.testing.assert_allclose(labels, 0.8 * np.eye(4)[LABELS % 4] + 0.05, rtol=1e-6)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_mixup_mixes_image_and_label_alike_with_shares_of_a_beta_distribution(alpha):
  n = 2000
  labels = np.arange(n) % 2
  # Black images of class 0 and white ones of class 1: what is white in an image is its share of class 1.
  images = np.broadcast_to((255 * labels).astype(np.uint8)[:, None, None, None], (n, 4, 4, 1))
  mixed, targets = _all(data.batches(images, labels, n, num_classes=2, mixup=alpha))
  np.testing.assert_allclose(mixed[:, 0, 0, 0], targets[:, 1], atol=1e-6)
  np.testing.assert_allclose(targets.sum(axis=1), 1, atol=1e-6)
  own = targets[np.arange(n), labels]  # n is even: every example meets one of the other class.
  assert own.mean() == pytest.approx(0.5, abs=0.03)
  assert own.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)


def test_mixup_of_a_tiny_alpha_and_of_one_example_is_harmless():
  mixed, _ = _all(data.batches(IMAGES, LABELS, 16, num_classes=50, mixup=1e-4))
  assert np.isfinite(mixed).all()
  mixed, targets = _all(data.batches(IMAGES[:1], LABELS[:1], 1, num_classes=50, mixup=1.0))
  np.testing.assert_allclose(mixed, IMAGES[:1] / np.float32(255), rtol=1e-6)
  np.testing.assert_allclose(targets, np.eye(50)[:1], rtol=1e-6)


def test_the_middle_is_kept_and_normalised():
  mean, deviation = np.array([0.4, 0.5, 0.6]), np.array([0.2, 0.25, 0.3])
  images, _ = _all(data.batches(IMAGES, LABELS, 16, side=20, normalize=(mean, deviation)))
  np.testing.assert_allclose(images, (IMAGES[:, 6:26, 6:26] / 255 - mean) / deviation, rtol=1e-4, atol=1e-5)


def test_a_memory_mapped_array_gives_the_same_batches(tmp_path):
  np.save(tmp_path / "images.npy", IMAGES)
  mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
  dataset = data.batches(mapped, LABELS, 16, shuffle_seed=3)
  assert dataset.element_spec == data.batches(IMAGES, LABELS, 16).element_spec
  for found, expected in zip(_all(dataset), _all(data.batches(IMAGES, LABELS, 16, shuffle_seed=3)), strict=True):
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("batch_size", [0, 51])
def test_a_batch_larger_than_the_data_is_refused(batch_size):
  with pytest.raises(ValueError, match=f"between 1 and the number of examples, 50; got {batch_size}"):
    data.batches(IMAGES, LABELS, batch_size)


def test_mismatched_arguments_are_refused():
  with pytest.raises(ValueError, match=r"must have one length; got 50 and 49"):
    data.batches(IMAGES, LABELS[:49], 8)
  for option in ({"augment": padded_crop}, {"mixup": 0.2, "num_classes": 50}):
    with pytest.raises(ValueError, match="do not belong to outputs computed before"):
      data.batches((IMAGES, LABELS), LABELS, 8, **option)
  with pytest.raises(ValueError, match="must have 100 rows, 50 examples times 2 views; got 50"):
    data.batches((IMAGES, LABELS), LABELS, 8, augment=padded_crop, views=2)
  for option in ({"views": 2}, {"views": 0, "augment": padded_crop}):
    with pytest.raises(ValueError, match="views must be a whole number > 0, of an augment"):
      data.batches(IMAGES, LABELS, 8, **option)
  for option in ({"label_smoothing": 0.1}, {"mixup": 0.2}):
    with pytest.raises(ValueError, match="num_classes is needed"):
      data.batches(IMAGES, LABELS, 8, **option)
  for option in ({"label_smoothing": 1.0}, {"mixup": -0.1}, {"mixup": float("nan")}):
    with pytest.raises(ValueError, match=r"label_smoothing must be in \[0, 1\) and mixup finite and >= 0"):
      data.batches(IMAGES, LABELS, 8, num_classes=50, **option)


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
