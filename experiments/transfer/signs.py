"""Photographs of traffic signs in tracks, divided by track."""

import functools
import re

import numpy as np
import tensorflow as tf

from tfkd.data import read_files
from tfkd.data.augment import Draw, photograph
from tfkd.data.images import read_image
from tfkd.sweeps import ArrayData

TEST_EVERY = 5
"""Every fifth track of a class, in the order of their names and from the second on, is in the test set."""
_NAME = re.compile(r"(?:^|/)train/(?P<label>[^/]+)/(?P<track>[^/]+)_[^/_]+\.png$")


@functools.lru_cache(maxsize=1)
def read(path: str, side: int) -> ArrayData:
  """Reads the photographs, and resizes each once.

  Args:
    path: directory or archive of files `train/<class>/<track>_<frame>.png`; other files are ignored.
    side: height and width of the resized images, in pixels. Of longer images the middle is used.

  Returns:
    A data set of images [n, side, side, 3] in [0, 1], whose augmentation zooms, shifts, rotates and recolors, and never
    mirrors: a mirrored sign is another sign.

  Raises:
    ValueError: the archive or an image is damaged, there are no such files, or a class has no test track.
    OSError: a file cannot be read.
  """
  # Archives have no reliable order.
  files = sorted((name.replace("\\", "/"), content) for name, content in read_files(path, "images"))
  found = [(match, content) for name, content in files if (match := _NAME.search(f"/{name}"))]
  classes = sorted({match["label"] for match, _ in found})
  if len(classes) < 2:
    raise ValueError(f"data={path} has {len(classes)} classes: expected files train/<class>/<track>_<frame>.png.")
  test_tracks = _test_tracks([(match["label"], match["track"]) for match, _ in found])
  is_test = np.array([(match["label"], match["track"]) in test_tracks for match, _ in found])
  images = np.stack([read_image(match.string.lstrip("/"), side, side, content) for match, content in found])
  labels = np.array([classes.index(match["label"]) for match, _ in found], np.int32)
  return ArrayData(
    (images[~is_test], labels[~is_test]),
    (images[is_test], labels[is_test]),
    classes,
    name="traffic_signs",
    scale_pixels=True,
    augment=varied,
  )


def _test_tracks(tracks):
  """Returns every fifth (class, track) of each class."""
  by_class: dict[str, list[str]] = {}
  for label, track in sorted(set(tracks)):
    by_class.setdefault(label, []).append(track)
  for label, names in by_class.items():
    if len(names) < 2:
      raise ValueError(f"class {label} has one track; expected two or more, one of them for the test set.")
  return {(label, track) for label, names in by_class.items() for track in names[1::TEST_EVERY]}


def varied(images: tf.Tensor, draw: Draw) -> tf.Tensor:
  """Zooms to 70 % of the area or more, rotates by up to 8 degrees, and changes colors by up to 30 %."""
  side = images.shape[1]
  return photograph(images, draw, side, scale=(0.7, 1.0), ratio=(0.9, 1.1), degrees=8.0, jitter=0.3, flip=False)
