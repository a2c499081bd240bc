"""The built-in data sets by name."""

import inspect
import os
from typing import Any

import numpy as np
import tensorflow as tf

from tfkd.data.cifar10 import CIFAR10
from tfkd.data.dataset import Dataset
from tfkd.data.food11 import Food11
from tfkd.data.house_numbers import HouseNumbers
from tfkd.data.pipeline import batches
from tfkd.data.svhn import SVHN

DATASETS: dict[str, type[Dataset]] = {dataset.name: dataset for dataset in (HouseNumbers, SVHN, CIFAR10, Food11)}
"""Class of each built-in data set by name. Options of a data set are arguments of its class."""


def info(name: str, **options: Any) -> Dataset:
  """Returns a data set by its name, without reading it.

  Args:
    name: a key of `DATASETS`.
    **options: arguments of the data set's class, such as image_size and on_bad_image of `Food11`. None leaves the
      default.

  Raises:
    ValueError: unknown name, or the data set has no such option.
  """
  if name not in DATASETS:
    raise ValueError(f"unknown data set {name!r}: expected one of {', '.join(DATASETS)}.")
  known = inspect.signature(DATASETS[name]).parameters
  options = {option: value for option, value in options.items() if value is not None}
  if unknown := [option for option in options if option not in known]:
    expected = f"expected {' or '.join(known)}" if known else "it has none"
    raise ValueError(f"{name} has no option {unknown[0]}: {expected}.")
  return DATASETS[name](**options)


def load_arrays(
  name: str, split: str, *, data_dir: str | os.PathLike | None = None, limit: int | None = None, **options: Any
) -> tuple[np.ndarray, np.ndarray]:
  """Reads one split of a data set into memory.

  Args:
    name: a key of `DATASETS`.
    split: "train" or "test"; also "extra" of svhn, and "evaluation" of food11, whose labels are -1.
    data_dir: directory of the files; None downloads them, or generates house_numbers, into Keras' data set directory.
    limit: number of examples to keep, drawn at random with a fixed seed; None keeps all.
    **options: see `info`.

  Returns:
    images uint8 [n, height, width, channels], labels int32 [n]. Images of food11 are larger than its `image_shape` by a
    seventh, so that `Dataset.transforms` can crop them.

  Raises:
    ValueError: unknown name, split or option, limit out of range, or damaged files.
    FileNotFoundError: data_dir lacks the files.
    OSError: a download failed.
  """
  return info(name, **options).load_arrays(split, data_dir=data_dir, limit=limit)


def load(
  name: str,
  split: str,
  *,
  data_dir: str | os.PathLike | None = None,
  batch_size: int = 128,
  shuffle_seed: int | None = None,
  augment: bool = False,
  limit: int | None = None,
  **options: Any,
) -> tf.data.Dataset:
  """Makes batches of a data set: `load_arrays`, then `batches` with the data set's transforms.

  Args:
    name, split, data_dir, limit, **options: see `load_arrays`.
    batch_size, shuffle_seed: see `batches`.
    augment: draw a new augmentation of every image in every epoch, by the data set's own recipe: shifts, and mirror
      images where they keep the class; random crops of food11, rotated and with other colours.

  Returns:
    `tf.data.Dataset` of (images float32 [batch, height, width, channels], labels int32 [batch]). Images are in [0, 1],
    and those of food11 normalized by ImageNet's mean and std.

  Raises:
    As `load_arrays` and `batches`.
  """
  dataset = info(name, **options)
  images, labels = dataset.load_arrays(split, data_dir=data_dir, limit=limit)
  transforms = dataset.transforms(augment)
  return batches(images, labels, batch_size, scale_pixels=True, transforms=transforms, shuffle_seed=shuffle_seed)
