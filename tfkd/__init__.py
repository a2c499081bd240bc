"""Knowledge distillation for tf_keras: small, quantized students from large teachers."""

import importlib
import os

# tfmot and tf_keras are Keras 2; this settles what `tf.keras` means before anything touches it.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

from tfkd import losses as losses  # noqa: E402
from tfkd import objectives as objectives  # noqa: E402
from tfkd import taps as taps  # noqa: E402
from tfkd import teachers as teachers  # noqa: E402
from tfkd.distiller import Distiller as Distiller  # noqa: E402

__version__ = "0.1.0"

_LAZY = ("data", "deploy", "models", "quantization", "train")


def __getattr__(name):
  # `tfkd.quantization` works after `import tfkd`, which stays as light as TensorFlow lets it be.
  if name in _LAZY:
    return importlib.import_module(f"tfkd.{name}")
  raise AttributeError(f"module 'tfkd' has no attribute {name!r}")
