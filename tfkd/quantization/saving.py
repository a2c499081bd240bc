"""Saves and loads quantized and float models in the formats of Keras."""

import os

import tf_keras as keras
from tf_keras.src.saving.serialization_lib import SafeModeScope

from tfkd.quantization import wrappers as _wrappers  # noqa: F401  (registers classes that loading needs)
from tfkd.storage.files import atomic_path


def save(model: keras.Model, path: str | os.PathLike) -> None:
  """Saves a quantized or float model atomically.

  Args:
    model: `tf_keras` model.
    path: path that ends in `.keras` or `.h5`, or has no suffix for a SavedModel directory.

  Raises:
    ValueError: the path has another suffix.
  """
  suffix = os.path.splitext(path)[1]
  if suffix not in (".keras", ".h5", "") or os.fspath(path).endswith(".weights.h5"):
    raise ValueError(f"path must end in .keras or .h5, or have no suffix for a SavedModel; got {path}.")
  with atomic_path(path) as temporary:
    model.save(temporary, **({} if suffix else {"save_format": "tf"}))


def load(path: str | os.PathLike, safe_mode: bool = True) -> keras.Model:
  """Loads a model that `save` wrote, with the same outputs and the state of its optimizer.

  Args:
    path: file or directory.
    safe_mode: whether to refuse files with Python code, which `Lambda` layers are saved as. False executes the code;
      use it for trusted files only.

  Returns:
    `tf_keras` model.

  Raises:
    FileNotFoundError: there is nothing at `path`.
    ValueError: the file is damaged, not a model, or contains code.
  """
  if not os.path.exists(path):
    raise FileNotFoundError(f"no model at {path}.")
  try:
    # Keras' `safe_mode` covers `.keras` files only; code in `.h5` files would be executed.
    with SafeModeScope(safe_mode):
      return keras.models.load_model(path)
  except Exception as error:
    # Keras, h5py and zipfile raise errors of different types for a damaged file.
    raise ValueError(f"{path} does not hold a readable model ({type(error).__name__}: {error}).") from error
