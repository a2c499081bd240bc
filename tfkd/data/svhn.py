"""SVHN Format 2: 32x32 colour crops of house numbers, in MATLAB files (Netzer et al. 2011)."""

import os
import zlib

import numpy as np
import tf_keras as keras

from tfkd.data.download import time_limit_of_connections

ADDRESS = "http://ufldl.stanford.edu/housenumbers/"
MD5 = {
  "train": "e26dedcc434d2e4c54c9b2d4a06d8373",
  "test": "eb5a983be6a315427106f1b164d9cef3",
  "extra": "a93ce644f1a588dc4d68dda5feec44a7",
}


def load_arrays(split, data_dir=None):
  """Reads one split.

  Args:
    split: "train" (73,257 images), "test" (26,032) or "extra" (531,131).
    data_dir: folder with `<split>_32x32.mat`; None downloads it once into Keras' data set folder, MD5 checked.

  Returns:
    images uint8 [n, 32, 32, 3], labels int32 [n] in 0..9.

  Raises:
    FileNotFoundError: data_dir has no such file.
    ValueError: the file is damaged or not SVHN's format, or the download's checksum is wrong.
    OSError: the download failed.
  """
  name = f"{split}_32x32.mat"
  if data_dir is None:
    return read_mat(_download(name, MD5[split]))
  path = os.path.join(data_dir, name)
  if not os.path.exists(path):
    raise FileNotFoundError(f"no {name} in {data_dir}: put SVHN's Format 2 files there, from {ADDRESS}")
  return read_mat(path)


def read_mat(path):
  """Reads and checks one `.mat` file of SVHN's Format 2.

  Args:
    path: MATLAB 5 file with X uint8 [32, 32, 3, n] and y [n, 1] in 1..10, where 10 means digit 0.

  Returns:
    images uint8 [n, 32, 32, 3], labels int32 [n] in 0..9.

  Raises:
    ValueError: names the file, what was found and what was expected.
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
      f"{path} ({size} bytes) is truncated or not a MATLAB file: {error}. Delete it and fetch it again."
    ) from error
  for key in ("X", "y"):
    if key not in content:
      size = os.path.getsize(path)
      raise ValueError(f"{path} ({size} bytes) holds no variable {key!r}: expected X and y as in SVHN's Format 2.")
  images, labels = content["X"], content["y"]
  if images.dtype != np.uint8 or images.ndim != 4 or images.shape[:3] != (32, 32, 3):
    raise ValueError(f"{path}: X must be uint8 [32, 32, 3, images]; found {images.dtype} {list(images.shape)}.")
  if labels.dtype.kind not in "uif" or labels.size != images.shape[3] or max(labels.shape) != labels.size:
    raise ValueError(
      f"{path}: y must be numbers [{images.shape[3]}, 1], one for each image; found {labels.dtype} "
      f"{list(labels.shape)}."
    )
  labels = labels.reshape(-1)
  wrong = ~np.isin(labels, np.arange(1, 11))
  if wrong.any():
    index = int(np.flatnonzero(wrong)[0])
    raise ValueError(f"{path}: labels must be 1..10 (10 means digit 0); found {labels[index]} at image {index}.")
  return np.ascontiguousarray(images.transpose(3, 0, 1, 2)), labels.astype(np.int32) % 10


def _download(name, md5):
  try:
    with time_limit_of_connections():
      return keras.utils.get_file(
        name, ADDRESS + name, file_hash=md5, hash_algorithm="md5", cache_subdir="datasets/svhn"
      )
  except ValueError as error:
    raise ValueError(f"{ADDRESS}{name} does not have the published MD5 {md5}: {error} Try again.") from error
  except Exception as error:
    # Keras turns a failed connection into a bare Exception.
    raise OSError(
      f"{ADDRESS}{name} could not be downloaded: {error} Fetch it by other means and pass --data_dir, or use "
      "--dataset=house_numbers, which needs no network."
    ) from error
