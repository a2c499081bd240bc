"""CIFAR-10: 32x32 photographs of ten classes (Krizhevsky 2009), from Keras or from a directory or archive of JPEGs."""

import io
import os

import numpy as np
import tf_keras as keras
from absl import logging

from tfkd.data.archives import read_files
from tfkd.data.dataset import Dataset
from tfkd.data.download import connection_timeout

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_TEST_SHARE = 10  # One in ten examples of each class becomes a test example where there is no test directory.
_SPLIT_SEED = 0


class CIFAR10(Dataset):
  """CIFAR-10."""

  name = "cifar10"
  classes = CLASSES
  splits = ("train", "test")
  image_shape = (32, 32, 3)

  def read(self, split: str, data_dir: str | os.PathLike | None) -> tuple[np.ndarray, np.ndarray]:
    return load_arrays(split, data_dir)


def load_arrays(split: str, data_dir: str | os.PathLike | None = None) -> tuple[np.ndarray, np.ndarray]:
  """Reads one split.

  Args:
    split: "train" or "test".
    data_dir: directory or tar archive (`.tar`, `.tar.gz`, `.tar.xz`) with `train/<class>/*.jpg` and optionally
      `test/<class>/*.jpg`. Without a test directory, a seeded tenth of each class of train is the test split. None
      downloads the original with Keras.

  Returns:
    images uint8 [n, 32, 32, 3], labels int32 [n] in 0..9, in the order of `CLASSES`.

  Raises:
    FileNotFoundError: data_dir does not exist.
    ValueError: there are no images, a class directory is unknown, or an image or the archive is damaged or of a wrong
      size.
    OSError: the download failed.
  """
  if data_dir is None:
    return _download(split)
  if not os.path.exists(data_dir):
    raise FileNotFoundError(f"no directory or archive at {data_dir}: expected train/<class>/*.jpg in it.")
  decoded = {"train": [], "test": []}
  for path, content in read_files(data_dir, "images"):
    parts = path.replace(os.sep, "/").split("/")
    if len(parts) < 3 or parts[-3] not in decoded or not parts[-1].lower().endswith((".jpg", ".jpeg", ".png")):
      continue
    if parts[-2] not in CLASSES:
      raise ValueError(f"{data_dir}: unknown class directory {parts[-2]!r}; expected {', '.join(CLASSES)}.")
    decoded[parts[-3]].append((path, CLASSES.index(parts[-2]), _decode(content, f"{data_dir}: {path}")))
  if not decoded["train"]:
    raise ValueError(f"{data_dir} has no train/<class>/*.jpg; classes are {', '.join(CLASSES)}.")
  if not decoded["test"]:
    logging.info("%s has no test directory: a seeded tenth of each class of train is the test split", data_dir)
    decoded = _split_off_test(decoded["train"])
  examples = sorted(decoded[split])  # By path: directories and archives have no reliable order.
  return np.stack([image for _, _, image in examples]), np.array([label for _, label, _ in examples], np.int32)


def _split_off_test(examples):
  rng = np.random.default_rng(_SPLIT_SEED)
  split = {"train": [], "test": []}
  for label in range(len(CLASSES)):
    members = sorted((e for e in examples if e[1] == label), key=lambda e: e[0])
    test = set(rng.permutation(len(members))[: len(members) // _TEST_SHARE].tolist())
    for i, example in enumerate(members):
      split["test" if i in test else "train"].append(example)
  if not split["test"]:
    raise ValueError(f"train has only {len(examples)} images: a test split of a tenth needs 10 images per class.")
  return split


def _decode(content, name):
  from PIL import Image, UnidentifiedImageError

  try:
    with Image.open(io.BytesIO(content), formats=("JPEG", "PNG")) as image:
      if image.size != (32, 32):
        raise ValueError(f"{name} is {image.size[0]}x{image.size[1]} pixels; CIFAR-10 images are 32x32.")
      return np.asarray(image.convert("RGB"))
  except (UnidentifiedImageError, OSError, SyntaxError) as error:
    raise ValueError(f"{name} is not a readable image ({error}).") from error


def _download(split):
  try:
    with connection_timeout():
      train, test = keras.datasets.cifar10.load_data()  # Checks the SHA-256.
  except Exception as error:
    raise OSError(
      f"CIFAR-10 could not be downloaded: {error} Pass a directory or .tar.xz of train/<class>/*.jpg as data_dir."
    ) from error
  images, labels = train if split == "train" else test
  return images, labels.reshape(-1).astype(np.int32)
