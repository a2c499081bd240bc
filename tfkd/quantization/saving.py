"""Saving and loading quantized students, in the formats that Keras users expect."""

import os

import tf_keras as keras
from tf_keras.src.saving.serialization_lib import SafeModeScope

from tfkd.quantization import wrappers as _wrappers  # noqa: F401  (loading needs its registrations)
from tfkd.storage.files import atomic_path


def save(model: keras.Model, path: str | os.PathLike) -> None:
  """Saves a model, quantized or float, under `path`, whole or not at all.

  Args:
    model: `tf_keras` model.
    path: ends in `.keras` or `.h5`; without a suffix, a SavedModel directory is written.

  Raises:
    ValueError: another suffix.
  """
  suffix = os.path.splitext(path)[1]
  if suffix not in (".keras", ".h5", "") or os.fspath(path).endswith(".weights.h5"):
    raise ValueError(f"path must end in .keras or .h5, or have no suffix for a SavedModel; got {path}.")
  with atomic_path(path) as temporary:
    model.save(temporary, **({} if suffix else {"save_format": "tf"}))


def load(path: str | os.PathLike, safe_mode: bool = True) -> keras.Model:
  """Loads what `save` wrote; the model predicts the same, and trains on.

  Args:
    path: a file or directory written by `save`.
    safe_mode: refuse files with Python code, which `Lambda` layers are saved as. False runs it: for files of your own.

  Returns:
    A `tf_keras` model.

  Raises:
    FileNotFoundError: nothing there.
    ValueError: the file is damaged, not a model, or has code in it.
  """
  if not os.path.exists(path):
    raise FileNotFoundError(f"no model at {path}.")
  try:
    # Keras' own `safe_mode` is for `.keras` files alone; `.h5` would be run.
    with SafeModeScope(safe_mode):
      return keras.models.load_model(path)
  except Exception as error:
    # Keras, h5py and zipfile each raise their own kinds for a damaged file.
    raise ValueError(f"{path} does not hold a readable model ({type(error).__name__}: {error}).") from error
