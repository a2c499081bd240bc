"""Random changes: CIFAR's crops against numpy, and photographs on ramps, which show where each pixel comes from."""

import numpy as np
import pytest
import tensorflow as tf

from tfkd.data.augment import padded_crop, photograph

HEIGHT, WIDTH, SIDE, N = 60, 80, 24, 400


def _draw(count, seed=0):
  return tf.constant(np.random.default_rng(seed).random((N, count), np.float32))


def _ramps():
  """The column of a pixel in channel 0, the row in channel 1, as shares of the image."""
  columns, rows = np.meshgrid(np.arange(WIDTH) / WIDTH, np.arange(HEIGHT) / HEIGHT)
  image = np.stack([columns, rows, np.zeros_like(rows)], axis=2).astype(np.float32)
  return np.broadcast_to(image, (N, *image.shape))


def _steps(**options):
  """Pixels of the image from one pixel of the result to the next: [n, (right, down), (column, row)]."""
  result = photograph(tf.constant(_ramps()), _draw, SIDE, jitter=0.0, **options).numpy()[..., :2] * (WIDTH, HEIGHT)
  middle = result[:, SIDE // 2 - 3 : SIDE // 2 + 3, SIDE // 2 - 3 : SIDE // 2 + 3]
  right, down = np.diff(middle, axis=2).mean(axis=(1, 2)), np.diff(middle, axis=1).mean(axis=(1, 2))
  return np.stack([right, down], axis=1), result


def test_crops_have_the_requested_areas_and_ratios():
  steps, result = _steps(scale=(0.2, 0.6), ratio=(0.8, 1.25), degrees=0.0)
  np.testing.assert_allclose(steps[:, [0, 1], [1, 0]], 0, atol=1e-3)  # Upright.
  width, height = np.abs(steps[:, 0, 0]) * SIDE, steps[:, 1, 1] * SIDE
  area, aspect = width * height / (WIDTH * HEIGHT), width / height
  assert area.min() > 0.199 and area.max() < 0.601 and area.mean() == pytest.approx(0.4, abs=0.02)
  assert aspect.min() > 0.799 and aspect.max() < 1.251 and np.log(aspect).mean() == pytest.approx(0, abs=0.02)
  assert (steps[:, 0, 0] < 0).mean() == pytest.approx(0.5, abs=0.08)  # Mirrored.
  centres = result[:, SIDE // 2 - 1 : SIDE // 2 + 1, SIDE // 2 - 1 : SIDE // 2 + 1].mean(axis=(1, 2))
  assert (centres.std(axis=0) > (4, 3)).all()
  # All of it lies within the image.
  assert result[..., 0].min() >= 0 and result[..., 0].max() <= WIDTH and result[..., 1].max() <= HEIGHT


def test_whole_images_are_resized_like_tf_image_resize():
  images = tf.constant(np.random.default_rng(0).uniform(size=(N, 30, 30, 3)), tf.float32)
  result = photograph(images, _draw, SIDE, scale=(1.0, 1.0), ratio=(1.0, 1.0), degrees=0.0, jitter=0.0).numpy()
  plain = tf.image.resize(images, (SIDE, SIDE)).numpy()
  mirrored = np.abs(result - plain).max(axis=(1, 2, 3)) > 1e-4
  assert mirrored.mean() == pytest.approx(0.5, abs=0.08)
  np.testing.assert_allclose(result, np.where(mirrored[:, None, None, None], plain[:, :, ::-1], plain), atol=1e-4)


def test_rotations_are_at_most_the_requested_degrees():
  steps, _ = _steps(scale=(0.2, 0.2), ratio=(1.0, 1.0), degrees=20.0)
  angles = np.degrees(np.arctan2(-steps[:, 1, 0], steps[:, 1, 1]))
  assert 17 < np.abs(angles).max() <= 20.1 and np.mean(angles) == pytest.approx(0, abs=1.5)


def test_color_factors_vary_by_the_requested_jitter():
  grey = tf.fill([N, 8, 8, 3], 0.5)
  result = photograph(grey, _draw, 8, jitter=0.2).numpy()
  # A grey image has no contrast and no saturation: brightness alone changes it.
  assert np.ptp(result, axis=(1, 2, 3)).max() < 1e-5
  assert 0.4 <= result.min() < 0.42 and 0.58 < result.max() <= 0.6001
  red = tf.constant([0.6, 0.4, 0.4]) * tf.ones([N, 8, 8, 3])
  result = photograph(red, _draw, 8, jitter=0.2).numpy()[:, 0, 0]
  ratio = result[:, 0] / result[:, 1]  # 1.5 as it was; contrast does not change an even image.
  assert ratio.min() < 1.43 and ratio.max() > 1.57
  assert result.min() >= 0 and result.max() <= 1


def test_crops_of_cifar_reach_every_offset_and_mirror_half():
  images = np.random.default_rng(0).normal(size=(9, 8, 6, 3)).astype(np.float32)
  # Each offset of rows once, of columns in the opposite order; mirrored below a half.
  uniform = np.stack([(np.arange(9) + 0.5) / 9, (8.5 - np.arange(9)) / 9, np.linspace(0, 0.999, 9)], axis=1)
  counts = []

  def draw(count):
    counts.append(count)
    return tf.constant(uniform, tf.float32)

  for flip in (True, False):
    found = padded_crop(tf.constant(images), draw, flip=flip).numpy()
    for i, image in enumerate(images):
      part = np.pad(image, ((4, 4), (4, 4), (0, 0)), mode="reflect")[i : i + 8, 8 - i : 8 - i + 6]
      np.testing.assert_array_equal(found[i], part[:, ::-1] if flip and uniform[i, 2] < 0.5 else part)
  assert counts == [3, 3]
