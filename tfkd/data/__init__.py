"""Data sets as `tf.data`, by name.

A data set is a module with `load_arrays(split, data_dir)` and one row in `DATASETS`.
"""

import functools
import os
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from tfkd.data import cifar10, food11, house_numbers, svhn
from tfkd.data.augment import padded_crop, photograph
from tfkd.data.pipeline import batches as batches
from tfkd.data.pipeline import rows as rows
from tfkd.preprocessing import IMAGENET
from tfkd.storage.files import keras_home


class Dataset(NamedTuple):
  """What is known of a data set before it is read."""

  load_arrays: Callable
  classes: tuple[str, ...]
  splits: tuple[str, ...]
  image_shape: tuple[int, int, int]
  augment: Callable
  """Random changes that keep the class: function from (images, seed) to images, see `tfkd.data.augment`."""
  normalize: tuple | None = None
  """Mean and standard deviation of each channel, for `batches`; None leaves [0, 1]."""


_FOOD11_SIDE = 224


def _load_house_numbers(split, data_dir=None):
  """Reads the drawn house numbers, which are written on first use (see `house_numbers`)."""
  directory = data_dir or os.path.join(keras_home(), "datasets", "house_numbers")
  if os.path.exists(directory) and not os.path.isdir(directory):
    raise ValueError(f"data_dir {directory} is a file; expected a folder for train_32x32.mat and test_32x32.mat.")
  house_numbers.write(directory)
  return svhn.load_arrays(split, directory)


def _food11(side=_FOOD11_SIDE, on_bad_image="error"):
  """Food-11's row for images of a size, kept as 256 pixels are for 224: training sees other parts of them each time."""
  load_arrays = functools.partial(food11.load_arrays, side=round(side * 8 / 7), on_bad_image=on_bad_image)
  augment = functools.partial(photograph, side=side)
  normalize = (IMAGENET.mean, IMAGENET.std)
  return Dataset(load_arrays, food11.CLASSES, tuple(food11.FOLDERS), (side, side, 3), augment, normalize)


_DIGITS = tuple("0123456789")
_shifted = functools.partial(padded_crop, flip=False)  # A mirrored digit is another one, or none.
DATASETS = {
  "house_numbers": Dataset(_load_house_numbers, _DIGITS, ("train", "test"), (32, 32, 3), _shifted),
  "svhn": Dataset(svhn.load_arrays, _DIGITS, ("train", "test", "extra"), (32, 32, 3), _shifted),
  "cifar10": Dataset(cifar10.load_arrays, cifar10.CLASSES, ("train", "test"), (32, 32, 3), padded_crop),
  "food11": _food11(),
}


def info(name, image_size=None, on_bad_image="error"):
  """Returns the `Dataset` row of a name.

  Args:
    name: a key of `DATASETS`.
    image_size: of food11, height and width that networks see; None for 224.
    on_bad_image: of food11, "error", or "skip" for images that cannot be read, see `food11.load_arrays`.

  Raises:
    ValueError: unknown name, or an option of food11 for another data set.
  """
  if name not in DATASETS:
    raise ValueError(f"unknown data set {name!r}: expected one of {', '.join(DATASETS)}.")
  if name == "food11":
    return _food11(image_size or _FOOD11_SIDE, on_bad_image)
  if image_size is not None or on_bad_image != "error":
    raise ValueError(f"{name} has images of one size, and skips none: image_size and on_bad_image are for food11.")
  return DATASETS[name]


def load_arrays(name, split, *, data_dir=None, limit=None, **options):
  """Reads one split of a data set into memory.

  Args:
    name: a key of `DATASETS`.
    split: "train" or "test", for svhn also "extra", for food11 "evaluation", whose labels are -1.
    data_dir: where the files are; None downloads or draws them into Keras' data set folder.
    limit: use only so many examples, drawn at random with a fixed seed; None for all.
    **options: see `info`.

  Returns:
    images uint8 [n, height, width, channels], labels int32 [n]. Images of food11 are larger than its `image_shape` by
    a seventh, for `batches` to take parts or the middle of.

  Raises:
    ValueError: unknown name or split, bad limit, or damaged files.
    FileNotFoundError: data_dir lacks the files.
    OSError: a download failed.
  """
  dataset = info(name, **options)
  if split not in dataset.splits:
    raise ValueError(f"{name} has no split {split!r}: expected one of {', '.join(dataset.splits)}.")
  images, labels = dataset.load_arrays(split, data_dir)
  if limit is None:
    return images, labels
  if not 1 <= limit <= len(labels):
    raise ValueError(f"limit must be between 1 and {len(labels)}, the size of {name}/{split}; got {limit}.")
  chosen = np.sort(np.random.default_rng(0).permutation(len(labels))[:limit])
  return images[chosen], labels[chosen]


def load(name, split, *, data_dir=None, batch_size=128, shuffle_seed=None, augment=False, limit=None, **options):
  """Makes a data set of batches: `load_arrays`, then `batches`.

  Args:
    name, split, data_dir, limit, **options: see `load_arrays`.
    batch_size, shuffle_seed: see `batches`.
    augment: make the random changes of the data set's recipe: shifts, and mirror images where they keep the class; of
      food11 random parts, turned and tinted.

  Returns:
    `tf.data.Dataset` of (images float32 [batch, height, width, channels], labels int32 [batch]). Images are in [0, 1],
    those of food11 normalised as ImageNet's.
  """
  dataset = info(name, **options)
  images, labels = load_arrays(name, split, data_dir=data_dir, limit=limit, **options)
  return batches(
    images, labels, batch_size, scale_pixels=True, shuffle_seed=shuffle_seed,
    augment=dataset.augment if augment else None, side=dataset.image_shape[0], normalize=dataset.normalize,
  )  # fmt: skip
