"""Loads tensorflow-model-optimization (tfmot) and leaves the process as it was.

When imported, tfmot sets TF_USE_LEGACY_KERAS=1, which decides what `tf.keras` is for every other library, here and in
child processes. It needs the variable for nothing: where `tf.keras` is Keras 3, it takes `tf_keras`.
"""

import os

import tensorflow as tf

_VARIABLE = "TF_USE_LEGACY_KERAS"


def load():
  """Imports tfmot; `tf.keras` and the environment stay as the user has them."""
  found = os.environ.get(_VARIABLE)
  dir(tf.keras)  # TensorFlow decides at the first use which Keras it is.
  try:
    import tensorflow_model_optimization as tfmot
  finally:
    if found is None:
      os.environ.pop(_VARIABLE, None)
    else:
      os.environ[_VARIABLE] = found
  return tfmot


load()
