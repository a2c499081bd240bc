"""Arrays to batches."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from tfkd import data
from tfkd.data import Augment, CenterCrop, MixUp, Normalize, OneHot
from tfkd.data.augment import padded_crop, photograph
from tfkd.preprocessing import Preprocessing

RNG = np.random.default_rng(1)
IMAGES = np.random.default_rng(0).integers(0, 256, (50, 32, 32, 3)).astype(np.uint8)
LABELS = np.arange(50, dtype=np.int32)

_scaled = functools.partial(data.batches, scale_pixels=True)


def _normalize(mean, std):
  return Normalize(Preprocessing(mean=mean, std=std))


def _all(dataset):
  batches = list(dataset.as_numpy_iterator())
  return np.concatenate([x for x, _ in batches]), np.concatenate([y for _, y in batches])


def test_keeps_every_example_in_order_scaled_to_one():
  images, labels = _all(_scaled(IMAGES, LABELS, 16))
  np.testing.assert_array_equal(images, IMAGES / np.float32(255))
  np.testing.assert_array_equal(labels, LABELS)
  assert images.dtype == np.float32


def _assert_same(found, expected):
  tf.nest.assert_same_structure(found, expected)
  for a, b in zip(tf.nest.flatten(found), tf.nest.flatten(expected), strict=True):
    assert a.dtype == np.asarray(b).dtype
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
  "inputs", [
    IMAGES, IMAGES.astype(np.float32), RNG.random((50, 20, 10, 1), np.float32), RNG.normal(size=(50, 7)),
    RNG.integers(0, 30_000, (50, 12)), np.array([b"text %d" % i for i in range(50)], object),
    {"ids": RNG.integers(0, 300, (50, 12)), "image": IMAGES, "length": np.arange(50)},
    RNG.random((50, 3)) > 0.5, {"text": np.array([b"%d" % i for i in range(50)], object), "ids": np.int16(LABELS)},
    ((IMAGES, LABELS),), (IMAGES, RNG.normal(size=(50, 4)).astype(np.float16)), ({"a": IMAGES, "b": LABELS}, LABELS),
  ], ids=["uint8", "0..255", "spectrogram", "float64", "ids", "text", "dict", "booleans", "dict of text", "in order",
         "further", "dict and further"],
)  # fmt: skip
@pytest.mark.parametrize(
  "labels", [LABELS, RNG.normal(size=50), RNG.integers(0, 4, (50, 6)), {"a": LABELS, "b": RNG.random((50, 2))}, None],
  ids=["classes", "numbers", "by token", "dict", "none"],
)  # fmt: skip
def test_values_and_dtypes_are_unchanged_by_default(inputs, labels):
  (batch,) = list(data.batches(inputs, labels, 50).as_numpy_iterator())
  if isinstance(inputs, tuple) and len(inputs) == 1:
    (inputs,) = inputs
  _assert_same(batch, (inputs,) if labels is None else (inputs, labels))


@pytest.mark.parametrize(
  "inputs, words",
  [
    (tf.data.Dataset.range(50), r"got a tf.data.Dataset: use `dataset.batch\(batch_size\)` .*CachedTeacher.zip"),
    ([IMAGES, LABELS], r"got a list: .* several inputs a dict, or \(\(first, second\),\)"),
    (np.array([[1], [2, 3]] * 25, object), "numbers, booleans or strings; got objects of type list"),
    (np.array(["2020-01-01"] * 50, "datetime64[D]"), r"numbers, booleans or strings; got datetime64\[D\]"),
    (np.zeros(50, [("a", "i4")]), r"numbers, booleans or strings; got \[\('a', '<i4'\)\]"),
    (None, "got an empty one, or None"),
    ({}, "got an empty one, or None"),
    ({"a": IMAGES, "b": None}, "got an empty one, or None"),
    ({"a": IMAGES, "b": LABELS[:49]}, "the same length; got 50 and 49"),
  ],
)
def test_inputs_that_are_no_arrays_are_refused(inputs, words):
  with pytest.raises(ValueError, match=words):
    data.batches(inputs, LABELS, 8)


def test_normalize_subtracts_mean_and_divides_by_std():
  x = RNG.normal(3, 2, (50, 7)).astype(np.float32)
  mean, std = x.mean(axis=0), x.std(axis=0)
  found, _ = _all(data.batches(x, LABELS, 16, transforms=[_normalize(mean, std)]))
  np.testing.assert_array_equal(found, (x - mean) / std)
  images = (np.float32([0.4, 0.5, 0.6]), np.float32([0.2, 0.25, 0.3]))
  found, _ = _all(_scaled(IMAGES, LABELS, 16, transforms=[_normalize(*images)]))
  np.testing.assert_array_equal(found, (IMAGES / np.float32(255) - images[0]) / images[1])


IDS = RNG.integers(0, 300, (50, 12))


@pytest.mark.parametrize(
  "inputs, options, words",
  [
    (IDS, {"transforms": [_normalize(0.5, 0.5)]}, "Normalize needs float inputs; got int64: leave Normalize out"),
    (IMAGES, {"transforms": [_normalize(0.5, 0.5)]}, "Normalize needs float inputs; got uint8: add scale_pixels=True"),
    (IMAGES, {"transforms": [Augment(padded_crop)]}, "Augment needs float inputs; got uint8: add scale_pixels=True"),
    (IDS / 1.0, {"transforms": [Augment(padded_crop)]}, r"Augment needs images \[n, .* channels\]; got .* \[50, 12\]"),
    (IDS / 1.0, {"transforms": [CenterCrop(8)]}, r"CenterCrop needs images \[n, .* channels\]; got .* \[50, 12\]"),
    (IMAGES, {"transforms": [CenterCrop(33)]}, r"between 1 and the images' own \(32, 32\); got 33"),
    (IMAGES / 255, {"scale_pixels": True}, "scale_pixels divides uint8 by 255; got float64 inputs: leave it out"),
    (IDS, {"scale_pixels": True}, "scale_pixels divides uint8 by 255; got int64 inputs: leave it out"),
    (IDS, {"transforms": [OneHot(50), MixUp(0.2)]}, "MixUp needs float inputs; got int64"),
    ({"a": IMAGES}, {"scale_pixels": True}, "scale_pixels needs inputs that are one array; got a dict: use `map`"),
    (IMAGES / 255, {"transforms": [_normalize(0.5, 0.0)]}, "and std > 0; got 0.5 and 0.0"),
    (IMAGES / 255, {"transforms": [_normalize([0.5] * 4, 0.5)]}, "or one for each of 3 channels"),
    (IMAGES / 255, {"transforms": [Augment(padded_crop)] * 2}, "transforms may have one Augment; got 2"),
    ([IMAGES, IMAGES], {}, "inputs must be an array, or a dict or tuple of arrays; got a list"),
    ({"a": IMAGES, "b": IMAGES[:49]}, {}, "must have the same length; got 50 and 49"),
    (5, {}, r"inputs must be dense arrays \[n, ...\]; got a int"),
  ],
)
def test_transforms_refuse_inputs_of_other_types_and_shapes(inputs, options, words):
  with pytest.raises(ValueError, match=words):
    data.batches(inputs, LABELS, 8, **options)


@pytest.mark.parametrize(
  "labels, words",
  [
    (LABELS / 1.0, "OneHot needs one array of integer labels; got float64"),
    ({"a": LABELS}, "OneHot needs one array of integer labels; got a dict"),
    (None, "OneHot needs one array of integer labels; got a NoneType"),
    (LABELS, r"labels must be in 0..39 for OneHot\(40\); got 0..49"),
    (LABELS - 1, r"labels must be in 0..39 for OneHot\(40\); got -1..48"),
  ],
)
def test_one_hot_refuses_labels_that_are_no_classes(labels, words):
  with pytest.raises(ValueError, match=words):
    _scaled(IMAGES, labels, 8, transforms=[OneHot(40)])


def test_a_view_has_the_same_bits_in_batches_of_every_size():
  # Sums, exponentials and sines, of one processor's lane or another's.
  transforms = [Augment(functools.partial(photograph, side=24), views=2)]
  whole, _ = _all(_scaled(IMAGES, LABELS, 50, transforms=transforms))
  for size in (1, 7, 33):
    np.testing.assert_array_equal(_all(_scaled(IMAGES, LABELS, size, transforms=transforms))[0], whole)


def test_one_hot_accepts_labels_of_tokens():
  labels = RNG.integers(0, 4, (50, 6)).astype(np.int16)
  _, found = _all(_scaled(IMAGES, labels, 16, transforms=[OneHot(4)]))
  np.testing.assert_array_equal(found, np.eye(4)[labels])


def test_the_order_depends_on_seed_and_epoch():
  dataset, same = (_scaled(IMAGES, LABELS, 16, shuffle_seed=3) for _ in range(2))
  first, second = _all(dataset)[1], _all(dataset)[1]
  assert set(first) == set(LABELS) and (first != second).any()
  np.testing.assert_array_equal(first, _all(same)[1])
  np.testing.assert_array_equal(second, _all(same)[1])
  assert (_all(_scaled(IMAGES, LABELS, 16, shuffle_seed=4))[1] != first).any()


def test_further_inputs_stay_with_their_example():
  logits = LABELS[:, None] * np.ones((1, 10), np.float32)
  for (images, rows), labels in _scaled((IMAGES, logits), LABELS, 7, shuffle_seed=0).as_numpy_iterator():
    np.testing.assert_array_equal(rows[:, 0], labels)
    np.testing.assert_allclose(images, IMAGES[labels] / np.float32(255))


@pytest.mark.parametrize("flip", [False, True])
def test_augmented_images_are_shifted_or_mirrored_crops(flip):
  ramp = np.broadcast_to(np.arange(32, dtype=np.uint8)[None, None, :, None] * 4, (200, 32, 32, 3))
  transforms = [Augment(functools.partial(padded_crop, flip=flip))]
  images, _ = _all(_scaled(ramp, np.zeros(200), 50, shuffle_seed=0, transforms=transforms))
  columns = np.round(images[:, 16, 8:24, 0] * 255 / 4)
  direction = np.sign(np.diff(columns).mean(axis=1))
  shift = np.where(direction > 0, columns[:, 0] - 8, 23 - columns[:, 0])
  assert set(shift) == set(range(-4, 5))
  assert (direction < 0).mean() == pytest.approx(0.5 if flip else 0.0, abs=0.12)


def test_augmentation_differs_between_epochs():
  dataset = _scaled(IMAGES, LABELS, 50, transforms=[Augment(padded_crop)])
  assert (_all(dataset)[0] != _all(dataset)[0]).any()


def test_views_of_an_example_are_equal_in_all_epochs():
  in_order = _all(_scaled(IMAGES, LABELS, 16, transforms=[Augment(padded_crop, 3)]))
  np.testing.assert_array_equal(in_order[1], np.tile(LABELS, 3))
  views = in_order[0].reshape(3, 50, 32, 32, 3)
  assert all((views[a] != views[b]).any(axis=(1, 2, 3)).mean() > 0.9 for a, b in ((0, 1), (0, 2), (1, 2)))
  of_two, _ = _all(_scaled(IMAGES, LABELS, 50, transforms=[Augment(padded_crop, 2)]))
  np.testing.assert_array_equal(of_two, in_order[0][:100])
  dataset = _scaled(IMAGES, LABELS, 7, transforms=[Augment(padded_crop, 3)], shuffle_seed=5)
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
  in_order, _ = _all(_scaled(IMAGES, LABELS, 16, transforms=[Augment(padded_crop, 3)]))
  dataset = _scaled((IMAGES, (rows, features)), LABELS, 16, transforms=[Augment(padded_crop, 3)], shuffle_seed=2)
  for (images, (row, feature)), labels in dataset.as_numpy_iterator():
    np.testing.assert_array_equal(row[:, 0], feature["layer"])
    np.testing.assert_array_equal(row[:, 0] % 50, labels)
    np.testing.assert_array_equal(images, in_order[feature["layer"]])


def test_one_hot_smooths_labels():
  _, labels = _all(_scaled(IMAGES, LABELS % 4, 16, transforms=[OneHot(4)]))
  np.testing.assert_array_equal(labels, np.eye(4)[LABELS % 4])
  _, labels = _all(_scaled(IMAGES, LABELS % 4, 16, transforms=[OneHot(4, 0.2)]))
  np.testing.assert_allclose(labels, 0.8 * np.eye(4)[LABELS % 4] + 0.05, rtol=1e-6)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_mixup_mixes_image_and_label_alike_with_shares_of_a_beta_distribution(alpha):
  n = 2000
  labels = np.arange(n) % 2
  # Black images of class 0 and white ones of class 1: what is white in an image is its share of class 1.
  images = np.broadcast_to((255 * labels).astype(np.uint8)[:, None, None, None], (n, 4, 4, 1))
  mixed, targets = _all(_scaled(images, labels, n, transforms=[OneHot(2), MixUp(alpha)]))
  np.testing.assert_allclose(mixed[:, 0, 0, 0], targets[:, 1], atol=1e-6)
  np.testing.assert_allclose(targets.sum(axis=1), 1, atol=1e-6)
  own = targets[np.arange(n), labels]  # n is even: every example meets one of the other class.
  assert own.mean() == pytest.approx(0.5, abs=0.03)
  assert own.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)


def test_mixup_of_a_tiny_alpha_and_of_one_example_is_harmless():
  mixed, _ = _all(_scaled(IMAGES, LABELS, 16, transforms=[OneHot(50), MixUp(1e-4)]))
  assert np.isfinite(mixed).all()
  mixed, targets = _all(_scaled(IMAGES[:1], LABELS[:1], 1, transforms=[OneHot(50), MixUp(1.0)]))
  np.testing.assert_allclose(mixed, IMAGES[:1] / np.float32(255), rtol=1e-6)
  np.testing.assert_allclose(targets, np.eye(50)[:1], rtol=1e-6)


def test_center_crop_is_followed_by_normalization():
  mean, std = np.array([0.4, 0.5, 0.6]), np.array([0.2, 0.25, 0.3])
  images, _ = _all(_scaled(IMAGES, LABELS, 16, transforms=[CenterCrop(20), _normalize(mean, std)]))
  np.testing.assert_allclose(images, (IMAGES[:, 6:26, 6:26] / 255 - mean) / std, rtol=1e-4, atol=1e-5)


def test_a_memory_mapped_array_gives_the_same_batches(tmp_path):
  np.save(tmp_path / "images.npy", IMAGES)
  mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
  dataset = _scaled(mapped, LABELS, 16, shuffle_seed=3)
  assert dataset.element_spec == _scaled(IMAGES, LABELS, 16).element_spec
  for found, expected in zip(_all(dataset), _all(_scaled(IMAGES, LABELS, 16, shuffle_seed=3)), strict=True):
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("batch_size", [0, 51])
def test_batch_larger_than_the_data_raises(batch_size):
  with pytest.raises(ValueError, match=f"between 1 and the number of examples, 50; got {batch_size}"):
    _scaled(IMAGES, LABELS, batch_size)


def test_mismatched_arguments_are_refused():
  with pytest.raises(ValueError, match=r"must have the same length; got 50 and 49"):
    _scaled(IMAGES, LABELS[:49], 8)
  for random in ([Augment(padded_crop)], [OneHot(50), MixUp(0.2)]):
    with pytest.raises(ValueError, match="(Augment|MixUp) changes inputs in every epoch"):
      _scaled((IMAGES, LABELS), LABELS, 8, transforms=random)
  with pytest.raises(ValueError, match="must have length 100, 50 examples times 2 views; got 50"):
    _scaled((IMAGES, LABELS), LABELS, 8, transforms=[Augment(padded_crop, views=2)])
  for views in (0, 1.5):
    with pytest.raises(ValueError, match="views must be None or a positive integer"):
      Augment(padded_crop, views)
  for labels in (LABELS, None, {"a": LABELS}):
    with pytest.raises(ValueError, match="MixUp needs labels that are distributions over classes: put OneHot"):
      _scaled(IMAGES, labels, 8, transforms=[MixUp(0.2)])
  with pytest.raises(ValueError, match=r"smoothing must be in \[0, 1\)"):
    OneHot(50, smoothing=1.0)
  for alpha in (-0.1, 0, float("nan")):
    with pytest.raises(ValueError, match="MixUp.alpha must be positive and finite"):
      MixUp(alpha)


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
