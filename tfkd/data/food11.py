"""Food-11: photographs of eleven kinds of food in a directory, decoded once and stored as an array on disk."""

import json
import os

import numpy as np
import tensorflow as tf
from absl import logging
from tqdm import tqdm

from tfkd.data.augment import Draw, photograph
from tfkd.data.dataset import Dataset
from tfkd.data.download import datasets_dir
from tfkd.data.images import read_image
from tfkd.preprocessing import IMAGENET
from tfkd.storage.digests import sha256_of_bytes
from tfkd.storage.files import atomic_path, write_json

CLASSES = (
  "bread", "dairy product", "dessert", "egg", "fried food", "meat", "noodles or pasta", "rice", "seafood", "soup",
  "vegetable or fruit",
)  # fmt: skip
# The homework's directory of each split; evaluation images have no labels.
FOLDERS = {"train": "training", "test": "validation", "evaluation": "evaluation"}
ON_BAD_IMAGE = ("error", "skip")
_SHOWN = 5


class Food11(Dataset):
  """Food-11.

  Args:
    image_size: height and width that networks read. Images are stored larger by a seventh, as 256 pixels for 224, so
      that training sees random crops.
    on_bad_image: see `load_arrays`.
  """

  name = "food11"
  classes = CLASSES
  splits = tuple(FOLDERS)

  def __init__(self, image_size: int = 224, on_bad_image: str = "error"):
    self.image_shape = (image_size, image_size, 3)
    self.preprocessing = IMAGENET._replace(size=image_size)
    self._on_bad_image = on_bad_image

  def read(self, split: str, data_dir: str | os.PathLike | None) -> tuple[np.ndarray, np.ndarray]:
    return load_arrays(split, data_dir, round(self.image_shape[0] * 8 / 7), self._on_bad_image)

  def augment(self, images: tf.Tensor, draw: Draw) -> tf.Tensor:
    """Takes random crops, rotated, mirrored and with other colours, of `image_shape`."""
    return photograph(images, draw, self.image_shape[0])


def load_arrays(
  split: str, data_dir: str | os.PathLike | None = None, side: int = 256, on_bad_image: str = "error"
) -> tuple[np.ndarray, np.ndarray]:
  """Reads one split as square images: decoded in parallel the first time, memory-mapped from disk afterwards.

  The shorter side of each photograph is resized to `side`, and the centre is cropped. Grey, palette, transparent and
  CMYK images become RGB; EXIF orientation is applied.

  Args:
    split: "train", "test" (the homework's validation) or "evaluation".
    data_dir: directory with `training/`, `validation/` and `evaluation/`; files are named `<label>_<id>.jpg`, those of
      evaluation freely. Decoded arrays are stored in its subdirectory `.tfkd`, or in Keras' data set directory where
      data_dir is read-only.
    side: height and width of the images.
    on_bad_image: "error" raises for unreadable images; "skip" leaves them out. In evaluation a skipped image becomes
      black, so that each file keeps its position.

  Returns:
    images uint8 [n, side, side, 3], in the order of file names; labels int32 [n], -1 in evaluation.

  Raises:
    FileNotFoundError: data_dir or the split's directory is missing.
    ValueError: there are no images, a file name has no valid label, or images are unreadable; the message counts and
      names them.
  """
  if on_bad_image not in ON_BAD_IMAGE:
    raise ValueError(f"on_bad_image must be one of {', '.join(ON_BAD_IMAGE)}; got {on_bad_image!r}.")
  names, labels = list_files(split, data_dir)
  folder = os.path.join(str(data_dir), FOLDERS[split])
  images, bad = _decoded(folder, names, side)
  if bad:
    shown = ", ".join(bad[:_SHOWN]) + (f" and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else "")
    message = (
      f"{len(bad)} of {len(names)} images in {folder} are empty, damaged or larger than 100 megapixels: {shown}."
    )
    if on_bad_image == "error":
      raise ValueError(f"{message} Download them again, or leave them out with on_bad_image=skip.")
    logging.warning("%s They are %s.", message, "black" if split == "evaluation" else "left out")
  if not bad or split == "evaluation":
    return images, labels
  good = np.setdiff1d(np.arange(len(names)), [names.index(name) for name in bad])
  if not len(good):
    raise ValueError(f"{folder} has no readable image.")
  return images[good], labels[good]


def list_files(split: str, data_dir: str | os.PathLike | None) -> tuple[list[str], np.ndarray]:
  """Returns the sorted file names of a split, and labels int32 [n], which are -1 in evaluation; see `load_arrays`."""
  if data_dir is None:
    raise FileNotFoundError(
      "Food-11 cannot be downloaded automatically: pass the directory of training/, validation/ and evaluation/ as "
      "data_dir."
    )
  folder = os.path.join(data_dir, FOLDERS[split])
  if not os.path.isdir(folder):
    raise FileNotFoundError(f"no directory {folder}: expected {', '.join(FOLDERS.values())} in {data_dir}.")
  names = sorted(name for name in os.listdir(folder) if name.lower().endswith((".jpg", ".jpeg", ".png")))
  if not names:
    raise ValueError(f"{folder} has no .jpg, .jpeg or .png file.")
  if split == "evaluation":
    return names, np.full(len(names), -1, np.int32)
  labels = [name.split("_")[0] for name in names]
  for name, label in zip(names, labels, strict=True):
    if not (label.isascii() and label.isdigit() and int(label) < len(CLASSES)):
      raise ValueError(f"{os.path.join(folder, name)}: expected <label>_<id>.jpg with a label of 0 to 10.")
  return names, np.array(labels, np.int32)


def _decoded(folder, names, side):
  """Returns all images, uint8 [n, side, side, 3], black where a file is unreadable, and the names of these files."""
  path = _cache_path(folder, names, side)
  if not os.path.exists(f"{path}.json"):
    _write_cache(path, folder, names, side)
  with open(f"{path}.json", encoding="utf-8") as file:
    bad = json.load(file)["bad"]
  return np.load(f"{path}.npy", mmap_mode="r"), bad


def _cache_path(folder, names, side):
  """Returns the path, without suffix, of the decoded array of exactly these files."""
  parts = [f"{os.path.abspath(folder)} {side}"]
  for name in names:
    status = os.stat(os.path.join(folder, name))
    parts.append(f"{name} {status.st_size} {status.st_mtime_ns}\n")
  kept = os.path.join(os.path.dirname(folder), ".tfkd")
  if not os.access(kept if os.path.isdir(kept) else os.path.dirname(folder), os.W_OK):
    kept = datasets_dir("food11")
  digest = sha256_of_bytes("".join(parts).encode())
  return os.path.join(kept, f"{os.path.basename(folder)}-{side}-{digest[:16]}")


def _write_cache(path, folder, names, side):
  logging.info("decoding %d images of %s into %s.npy, once", len(names), folder, path)
  paths = tf.data.Dataset.from_tensor_slices([os.path.join(folder, name) for name in names])

  def decode(file):
    image, readable = tf.numpy_function(lambda f: _decode(f.decode(), side), [file], (tf.uint8, tf.bool))
    return tf.ensure_shape(image, [side, side, 3]), tf.ensure_shape(readable, [])

  bad = []
  with atomic_path(f"{path}.npy") as temporary:
    images = np.lib.format.open_memmap(temporary, "w+", np.uint8, (len(names), side, side, 3))
    decoded = paths.map(decode, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)
    for i, (image, readable) in enumerate(tqdm(decoded.as_numpy_iterator(), desc="decoding", total=len(names))):
      images[i] = image
      if not readable:
        bad.append(names[i])
    images.flush()
    del images
  # Written last: an array without it is not used.
  write_json(f"{path}.json", {"bad": bad})


def _decode(path, side):
  """Returns the image, uint8 [side, side, 3], and whether the file is readable."""
  try:
    return read_image(path, side, side), True
  except ValueError:
    return np.zeros((side, side, 3), np.uint8), False
