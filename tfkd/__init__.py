"""Knowledge distillation for tf_keras: small, quantized students from large teachers.

Importing tfkd has no side effects on other code in the process: `tf.keras` and the environment stay unchanged.
"""

import importlib

from tfkd import features as features
from tfkd import keras3 as keras3
from tfkd import losses as losses
from tfkd import objectives as objectives
from tfkd import preprocessing as preprocessing
from tfkd import teachers as teachers
from tfkd.distiller.distiller import Distiller as Distiller
from tfkd.features import taps as taps
from tfkd.keras3 import from_keras3 as from_keras3
from tfkd.keras3 import to_keras3 as to_keras3

__version__ = "0.1.0"

# Loaded when they are first used: with them come tfmot, LiteRT and matplotlib.
_LAZY = ("data", "deploy", "models", "quantization", "reporting", "sweeps", "training")
_EAGER = (
  "Distiller",
  "features",
  "from_keras3",
  "keras3",
  "losses",
  "objectives",
  "preprocessing",
  "taps",
  "teachers",
  "to_keras3",
)
__all__ = [*_EAGER, *_LAZY]  # noqa: PLE0604  # pyright: ignore


def __getattr__(name):
  if name in _LAZY:
    return importlib.import_module(f"tfkd.{name}")
  raise AttributeError(f"module 'tfkd' has no attribute {name!r}")


def __dir__():
  return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
