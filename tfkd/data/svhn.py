"""SVHN Format 2: 32x32 colour crops of house numbers in MATLAB files (Netzer et al. 2011)."""

import os
import zlib

import numpy as np
import tensorflow as tf
import tf_keras as keras

from tfkd.data.augment import Draw, padded_crop
from tfkd.data.dataset import Dataset
from tfkd.data.download import connection_timeout

ADDRESS = "http://ufldl.stanford.edu/housenumbers/"
MD5 = {
  "train": "e26dedcc434d2e4c54c9b2d4a06d8373",
  "test": "eb5a983be6a315427106f1b164d9cef3",
  "extra": "a93ce644f1a588dc4d68dda5feec44a7",
}


class SVHN(Dataset):
  """Street View House Numbers, cropped to single digits."""

  name = "svhn"
  classes = tuple("0123456789")
  splits = ("train", "test", "extra")
  image_shape = (32, 32, 3)

  def read(self, split: str, data_dir: str | os.PathLike | None) -> tuple[np.ndarray, np.ndarray]:
    return load_arrays(split, data_dir)

  def augment(self, images: tf.Tensor, draw: Draw) -> tf.Tensor:
    """Shifts images at random; a mirrored digit would be another class, or none."""
    return padded_crop(images, draw, flip=False)


def load_arrays(split: str, data_dir: str | os.PathLike | None = None) -> tuple[np.ndarray, np.ndarray]:
  """Reads one split.

  Args:
    split: "train" (73,257 images), "test" (26,032) or "extra" (531,131).
    data_dir: directory of `<split>_32x32.mat`; None downloads the file once into Keras' data set directory and verifies
      its MD5.

  Returns:
    images uint8 [n, 32, 32, 3], labels int32 [n] in 0..9.

  Raises:
    FileNotFoundError: data_dir lacks the file.
    ValueError: the file is damaged or not in SVHN's format, or the checksum of the download is wrong.
    OSError: the download failed.
  """
  name = f"{split}_32x32.mat"
  if data_dir is None:
    return read_mat(_download(name, MD5[split]))
  path = os.path.join(data_dir, name)
  if not os.path.exists(path):
    raise FileNotFoundError(f"no {name} in {data_dir}: download SVHN's Format 2 files from {ADDRESS} into it.")
  return read_mat(path)


def read_mat(path: str | os.PathLike) -> tuple[np.ndarray, np.ndarray]:
  """Reads and validates one `.mat` file of SVHN's Format 2.

  Args:
    path: MATLAB 5 file with X uint8 [32, 32, 3, n] and y [n, 1] in 1..10, where 10 means digit 0.

  Returns:
    images uint8 [n, 32, 32, 3], labels int32 [n] in 0..9.

  Raises:
    ValueError: the file is damaged or not in this format; the message names the file, the finding and the expectation.
  """
  from scipy.io import loadmat
  from scipy.io.matlab import MatReadError

  try:
    content = loadmat(path, variable_names=("X", "y"))
  except (MatReadError, ValueError, TypeError, KeyError, IndexError, OverflowError, EOFError, OSError, MemoryError,
          NotImplementedError, zlib.error) as error:  # fmt: skip
    if isinstance(error, (FileNotFoundError, PermissionError)):
      raise
    size = os.path.getsize(path)
    raise ValueError(
      f"{path} ({size} bytes) is truncated or not a MATLAB file: {error}. Delete it and download it again."
    ) from error
  for key in ("X", "y"):
    if key not in content:
      size = os.path.getsize(path)
      raise ValueError(f"{path} ({size} bytes) has no variable {key!r}: expected X and y as in SVHN's Format 2.")
  images, labels = content["X"], content["y"]
  if images.dtype != np.uint8 or images.ndim != 4 or images.shape[:3] != (32, 32, 3):
    raise ValueError(f"{path}: X must be uint8 [32, 32, 3, images]; found {images.dtype} {list(images.shape)}.")
  if labels.dtype.kind not in "uif" or labels.size != images.shape[3] or max(labels.shape) != labels.size:
    raise ValueError(
      f"{path}: y must be numbers [{images.shape[3]}, 1], one per image; found {labels.dtype} {list(labels.shape)}."
    )
  labels = labels.reshape(-1)
  wrong = ~np.isin(labels, np.arange(1, 11))
  if wrong.any():
    index = int(np.flatnonzero(wrong)[0])
    raise ValueError(f"{path}: labels must be 1..10 (10 means digit 0); found {labels[index]} at image {index}.")
  return np.ascontiguousarray(images.transpose(3, 0, 1, 2)), labels.astype(np.int32) % 10


def _download(name, md5):
  try:
    with connection_timeout():
      return keras.utils.get_file(
        name, ADDRESS + name, file_hash=md5, hash_algorithm="md5", cache_subdir="datasets/svhn"
      )
  except ValueError as error:
    raise ValueError(f"{ADDRESS}{name} does not have the published MD5 {md5}: {error} Try again.") from error
  except Exception as error:
    # Keras turns a failed connection into a bare Exception.
    raise OSError(
      f"{ADDRESS}{name} could not be downloaded: {error} Download it by other means and pass its directory as "
      "data_dir, or use house_numbers, which needs no network."
    ) from error
