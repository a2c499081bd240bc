"""Random augmentations of image batches, from uniform random numbers that the caller draws."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

Draw = Callable[[int], tf.Tensor]
"""Function from a count to uniform random numbers in [0, 1), float32 [batch, count]."""
ImageFunction = Callable[[tf.Tensor, Draw], tf.Tensor]
"""Function from images in [0, 1], float [batch, height, width, channels], and a `Draw` to images."""

_PADDING = 4
_LUMA = (0.299, 0.587, 0.114)


def padded_crop(images, draw, flip=True):
  """Crops images at random after reflection padding by 4 pixels, and mirrors half of them: the recipe of CIFAR.

  Args:
    images: float [n, height, width, channels].
    draw: function from a count to float32 [n, count], uniform in [0, 1); called once.
    flip: mirror half of the images left to right.

  Returns:
    float [n, height, width, channels].
  """
  height, width = images.shape[1:3]
  pad = [[0, 0], [_PADDING, _PADDING], [_PADDING, _PADDING], [0, 0]]
  padded = tf.pad(images, pad, mode="REFLECT")
  uniform = draw(3)
  offsets = tf.cast(uniform[:, :2] * (2 * _PADDING + 1), tf.int32)
  rows = offsets[:, :1] + tf.range(height)
  columns = offsets[:, 1:] + tf.range(width)
  if flip:
    mirrored = uniform[:, 2:] < 0.5
    columns = tf.where(mirrored, columns[:, ::-1], columns)
  images = tf.gather(padded, rows, axis=1, batch_dims=1)
  return tf.gather(images, columns, axis=2, batch_dims=1)


def photograph(images, draw, side, scale=(0.35, 1.0), ratio=(0.75, 4 / 3), degrees=15.0, jitter=0.2, flip=True):
  """Crops, rotates, mirrors and recolors photographs at random: the recipe of ImageNet and of the Food-11 homework.

  Crop, rotation, mirror and resize take one bilinear sampling. Brightness, contrast and saturation follow, as in
  torchvision's ColorJitter; its random order of the three is fixed here.

  Args:
    images: float [n, height, width, 3] in [0, 1].
    draw: function from a count to float32 [n, count], uniform in [0, 1); called once.
    side: height and width of the result.
    scale: range of the area of the crop, as a share of the image.
    ratio: range of width over height of the crop, drawn on a logarithmic scale.
    degrees: largest rotation in either direction.
    jitter: largest difference of the three color factors from 1.
    flip: mirror half of the images left to right.

  Returns:
    float [n, side, side, 3] in [0, 1].
  """
  uniform = draw(9)
  transforms = _random_boxes(uniform[:, :6], images.shape[1:3], side, scale, ratio, degrees, flip)
  images = tf.raw_ops.ImageProjectiveTransformV3(
    images=images, transforms=transforms, output_shape=[side, side], fill_value=0.0, interpolation="BILINEAR",
    fill_mode="REFLECT",
  )  # fmt: skip
  images = tf.ensure_shape(images, [None, side, side, 3])
  brightness, contrast, saturation = tf.unstack(1 + jitter * (2 * uniform[:, 6:, None, None, None] - 1), axis=1)
  images = tf.clip_by_value(images * brightness, 0, 1)
  mean = tf.reduce_mean(_grey(images), axis=[1, 2], keepdims=True)
  images = tf.clip_by_value(mean + contrast * (images - mean), 0, 1)
  grey = _grey(images)
  return tf.clip_by_value(grey + saturation * (images - grey), 0, 1)


def _random_boxes(uniform, size, side, scale, ratio, degrees, flip):
  """Returns the [n, 8] of ImageProjectiveTransform that map positions of the result to positions of the image."""
  height, width = (float(s) for s in size)

  def between(i, low, high):
    return low + (high - low) * uniform[:, i]

  area = height * width * between(0, *scale)
  aspect = tf.exp(between(1, np.log(ratio[0]), np.log(ratio[1])))
  w = tf.minimum(tf.sqrt(area * aspect), width)
  h = tf.minimum(tf.sqrt(area / aspect), height)
  # Pixel centers: the first is at 0, the last at size - 1.
  x = (width - 1) / 2 + between(2, -0.5, 0.5) * (width - w)
  y = (height - 1) / 2 + between(3, -0.5, 0.5) * (height - h)
  angle = between(4, -degrees, degrees) * np.pi / 180
  mirror = tf.where(uniform[:, 5] < 0.5, -1.0 if flip else 1.0, 1.0)
  step_x, step_y = mirror * w / side, h / side
  a, b = step_x * tf.cos(angle), -step_y * tf.sin(angle)
  d, e = step_x * tf.sin(angle), step_y * tf.cos(angle)
  middle = (side - 1) / 2
  zero = tf.zeros_like(a)
  return tf.stack([a, b, x - middle * (a + b), d, e, y - middle * (d + e), zero, zero], axis=1)


def _grey(images):
  return tf.reduce_sum(images * tf.constant(_LUMA), axis=3, keepdims=True)


def mixup(images, labels, seed, alpha):
  """Mixes example i with example n - 1 - i of a batch: share * example + (1 - share) * other.

  The order of batches is random already. Source: Zhang et al. 2018, arXiv:1710.09412, with a share drawn from
  Beta(alpha, alpha) for each example.

  Args:
    images: float [n, height, width, channels].
    labels: float [n, classes], distributions.
    seed: int [2].
    alpha: positive number; a small one leaves most examples nearly unchanged.

  Returns:
    Images and labels, mixed by the same shares.
  """
  n = tf.shape(images)[0]
  # Beta(a, a) as a ratio of gamma variates.
  own, other = (tf.random.stateless_gamma([n], seed + i, alpha) for i in (1, 2))  # Augment uses seed + 0.
  # Both underflow to 0 if alpha is tiny: the example stays unchanged.
  share = tf.where(own + other > 0, tf.math.divide_no_nan(own, own + other), 1.0)

  def mixed(x):
    weight = tf.reshape(share, [n] + [1] * (x.shape.rank - 1))
    return weight * x + (1 - weight) * x[::-1]

  return mixed(images), mixed(labels)
