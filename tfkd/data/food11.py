"""Food-11: photographs of eleven kinds of food in a folder, decoded once and kept as an array on disk."""

import json
import os

import numpy as np
import tensorflow as tf
from absl import logging
from tqdm import tqdm

from tfkd.data.images import read_image
from tfkd.storage.digests import sha256_of_bytes
from tfkd.storage.files import atomic_path, keras_home, write_json

CLASSES = (
  "bread", "dairy product", "dessert", "egg", "fried food", "meat", "noodles or pasta", "rice", "seafood", "soup",
  "vegetable or fruit",
)  # fmt: skip
# The homework's names; its evaluation images have no labels.
FOLDERS = {"train": "training", "test": "validation", "evaluation": "evaluation"}
ON_BAD_IMAGE = ("error", "skip")
_SHOWN = 5


def load_arrays(split, data_dir=None, side=256, on_bad_image="error"):
  """Reads one split, square and of one size; decoded in parallel the first time, memory-mapped from disk afterwards.

  The shorter side of each photograph is brought to `side`, and the middle is kept. Grey, palette, transparent and CMYK
  images become RGB, and turned ones (EXIF) upright.

  Args:
    split: "train", "test" (the homework's validation) or "evaluation".
    data_dir: folder with `training/`, `validation/` and `evaluation/`; files are called `<label>_<id>.jpg`, in
      evaluation as they like. The arrays are kept in its folder `.tfkd`, or where that cannot be written in Keras' data
      set folder.
    side: height and width of the arrays' images.
    on_bad_image: "error", or "skip" to leave out what cannot be read. In evaluation such an image stays, black, so that
      every file has its row.

  Returns:
    images uint8 [n, side, side, 3], in the order of file names; labels int32 [n], -1 in evaluation.

  Raises:
    FileNotFoundError: data_dir or the split's folder is missing.
    ValueError: no images, a label that is none, or images that cannot be read: they are counted and named.
  """
  if on_bad_image not in ON_BAD_IMAGE:
    raise ValueError(f"on_bad_image must be one of {', '.join(ON_BAD_IMAGE)}; got {on_bad_image!r}.")
  names, labels = list_files(split, data_dir)
  folder = os.path.join(data_dir, FOLDERS[split])
  images, bad = _decoded(folder, names, side)
  if bad:
    shown = ", ".join(bad[:_SHOWN]) + (f" and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else "")
    message = (
      f"{len(bad)} of {len(names)} images in {folder} are empty, damaged or of more than 100 megapixels: {shown}."
    )
    if on_bad_image == "error":
      raise ValueError(f"{message} Fetch them again, or go on without them with --on_bad_image=skip.")
    logging.warning("%s They are %s.", message, "black" if split == "evaluation" else "left out")
  if not bad or split == "evaluation":
    return images, labels
  good = np.setdiff1d(np.arange(len(names)), [names.index(name) for name in bad])
  if not len(good):
    raise ValueError(f"{folder} holds no readable image.")
  return images[good], labels[good]


def list_files(split, data_dir):
  """Returns the file names of a split in order, and labels int32 [n] (-1 in evaluation); see `load_arrays`."""
  if data_dir is None:
    raise FileNotFoundError(
      "Food-11 has no address to be downloaded from: pass --data_dir with a folder that has training/, validation/ and "
      "evaluation/."
    )
  folder = os.path.join(data_dir, FOLDERS[split])
  if not os.path.isdir(folder):
    raise FileNotFoundError(f"no folder {folder}: expected {', '.join(FOLDERS.values())} in {data_dir}.")
  names = sorted(name for name in os.listdir(folder) if name.lower().endswith((".jpg", ".jpeg", ".png")))
  if not names:
    raise ValueError(f"{folder} holds no .jpg, .jpeg or .png file.")
  if split == "evaluation":
    return names, np.full(len(names), -1, np.int32)
  labels = [name.split("_")[0] for name in names]
  for name, label in zip(names, labels, strict=True):
    if not (label.isascii() and label.isdigit() and int(label) < len(CLASSES)):
      raise ValueError(f"{os.path.join(folder, name)}: expected <label>_<id>.jpg with a label of 0 to 10.")
  return names, np.array(labels, np.int32)


def _decoded(folder, names, side):
  """uint8 [n, side, side, 3] of all files, black where one cannot be read, and the names of those."""
  path = _cache_path(folder, names, side)
  if not os.path.exists(f"{path}.json"):
    _write_cache(path, folder, names, side)
  with open(f"{path}.json", encoding="utf-8") as file:
    bad = json.load(file)["bad"]
  return np.load(f"{path}.npy", mmap_mode="r"), bad


def _cache_path(folder, names, side):
  """Where the array of exactly these files is kept, without suffix."""
  parts = [f"{os.path.abspath(folder)} {side}"]
  for name in names:
    status = os.stat(os.path.join(folder, name))
    parts.append(f"{name} {status.st_size} {status.st_mtime_ns}\n")
  kept = os.path.join(os.path.dirname(folder), ".tfkd")
  if not os.access(kept if os.path.isdir(kept) else os.path.dirname(folder), os.W_OK):
    kept = os.path.join(keras_home(), "datasets", "food11")
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
  """uint8 [side, side, 3] and whether the file could be read."""
  try:
    return read_image(path, side, side), True
  except ValueError:
    return np.zeros((side, side, 3), np.uint8), False
