"""The base class of data sets: names, shapes and preprocessing, and reading of examples."""

import os
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tfkd.data.augment import Draw, padded_crop
from tfkd.data.transforms import Augment, CenterCrop, Normalize, Transform
from tfkd.preprocessing import Preprocessing


class Dataset:
  """A labelled image data set.

  A subclass sets the attributes below and defines `read`; options are arguments of its constructor. The built-in ones
  are listed by name in `tfkd.data.DATASETS`.
  """

  name: str
  classes: Sequence[str]
  splits: Sequence[str]
  """Names of the splits: "train", "test" and possibly others."""
  image_shape: tuple[int, int, int]
  """Height, width and channels that networks read."""
  preprocessing: Preprocessing = Preprocessing()
  """Applied to images in [0, 1] before networks read them."""

  def read(self, split: str, data_dir: str | os.PathLike | None) -> tuple[np.ndarray, np.ndarray]:
    """Reads one split.

    Args:
      split: one of `splits`.
      data_dir: directory of the files; None downloads or generates them.

    Returns:
      images uint8 [n, height, width, channels], labels int32 [n]. Images may be larger than `image_shape`, to be
      cropped by `augment` and `transforms`.
    """
    raise NotImplementedError

  def augment(self, images: tf.Tensor, draw: Draw) -> tf.Tensor:
    """Changes images at random without changing their class; see `tfkd.data.augment`."""
    return padded_crop(images, draw)

  def load_arrays(
    self, split: str, *, data_dir: str | os.PathLike | None = None, limit: int | None = None
  ) -> tuple[np.ndarray, np.ndarray]:
    """Reads one split into memory; see `tfkd.data.load_arrays`."""
    if split not in self.splits:
      raise ValueError(f"{self.name} has no split {split!r}: expected one of {', '.join(self.splits)}.")
    images, labels = self.read(split, data_dir)
    if limit is None:
      return images, labels
    if not 1 <= limit <= len(labels):
      raise ValueError(f"limit must be between 1 and {len(labels)}, the size of {self.name}/{split}; got {limit}.")
    chosen = np.sort(np.random.default_rng(0).permutation(len(labels))[:limit])
    return images[chosen], labels[chosen]

  def transforms(self, augment: bool = False, views: int | None = None) -> list[Transform]:
    """Returns the transforms from images in [0, 1] to those that networks read, for `tfkd.data.batches`.

    Args:
      augment: change images at random, instead of cropping their centre.
      views: see `Augment`.
    """
    crop = Augment(self.augment, views) if augment else CenterCrop(self.image_shape[:2])
    return [crop, *([Normalize(self.preprocessing)] if self.preprocessing.normalizes else [])]
