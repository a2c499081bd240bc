"""Imports tensorflow-model-optimization (tfmot) without its side effects on the process.

When imported, tfmot sets TF_USE_LEGACY_KERAS=1, which changes `tf.keras` for every other library in this process and
its children. tfmot does not need the variable: if `tf.keras` is Keras 3, it uses `tf_keras`.
"""

import os
from types import ModuleType

import tensorflow as tf

_VARIABLE = "TF_USE_LEGACY_KERAS"


def load() -> ModuleType:
  """Imports tfmot without changing `tf.keras` or the environment."""
  found = os.environ.get(_VARIABLE)
  dir(tf.keras)  # The first use of `tf.keras` determines which Keras it is.
  try:
    import tensorflow_model_optimization as tfmot
  finally:
    if found is None:
      os.environ.pop(_VARIABLE, None)
    else:
      os.environ[_VARIABLE] = found
  return tfmot


load()
