"""Checks the public names of tfkd, their docstrings and type hints, and the side effects of importing it."""

import importlib
import inspect
import os
import pkgutil
import subprocess
import sys

import pytest

import tfkd

# One process: side effects of importing tfkd and all of its packages on a program that uses Keras 3.
_WITH_KERAS_3 = """
import os, sys
environment = dict(os.environ)
import numpy as np
import tensorflow as tf
import tf_keras
loaded = set(sys.modules)
import tfkd

heavy = {"matplotlib", "ai_edge_litert", "tensorflow_model_optimization", "tqdm", "keras_hub", "scipy", "transformers"}
new = {name.partition(".")[0] for name in set(sys.modules) - loaded}
assert not new & heavy, new & heavy
assert dict(os.environ) == environment, "import tfkd"
layers = tf_keras.layers
student = tf_keras.Sequential([tf_keras.Input((8, 8, 3)), layers.Conv2D(2, 3, activation="relu"), layers.Flatten()])
for part in dir(tfkd):
  getattr(tfkd, part)
assert "tensorflow_model_optimization" in sys.modules
quantized = tfkd.quantization.quantize(student, "w8a8", calibration_data=np.zeros((2, 8, 8, 3), np.float32))
assert dict(os.environ) == environment, "tfmot"
for module in (tf.keras, tf.losses, tf.metrics, tf.optimizers, tf.initializers):
  dir(module)  # It is loaded at its first use.
  assert module.__name__.startswith("keras."), module
assert isinstance(quantized, tf_keras.Model) and not isinstance(quantized, tf.keras.Model)

theirs = tf.keras.Sequential([tf.keras.layers.Dense(3), tf.keras.layers.Dense(2)])
theirs.compile("adam", "mse")
theirs.fit(np.ones((4, 3), np.float32), np.ones((4, 2), np.float32), verbose=0)
assert theirs.layers[0].kernel.__class__.__module__.startswith("keras.src")
"""
_WITH_LEGACY_KERAS = """
import os
import tfkd, tensorflow as tf, tf_keras
tfkd.quantization
assert tf.keras.Sequential is tf_keras.Sequential and os.environ["TF_USE_LEGACY_KERAS"] == "1"
"""


@pytest.mark.parametrize("code, legacy", [(_WITH_KERAS_3, None), (_WITH_LEGACY_KERAS, "1")], ids=["keras3", "legacy"])
def test_importing_leaves_tf_keras_the_environment_and_heavy_libraries_alone(code, legacy):
  environment = {name: value for name, value in os.environ.items() if name != "TF_USE_LEGACY_KERAS"}
  if legacy:
    environment["TF_USE_LEGACY_KERAS"] = legacy
  result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
  assert result.returncode == 0, result.stderr


def test_dir_lists_everything_public():
  public = {
    "Distiller",
    "data",
    "deploy",
    "features",
    "from_keras3",
    "keras3",
    "losses",
    "models",
    "objectives",
    "preprocessing",
    "quantization",
    "taps",
    "teachers",
    "reporting",
    "sweeps",
    "to_keras3",
    "training",
  }
  assert {name for name in dir(tfkd) if not name.startswith("_")} == public == set(tfkd.__all__)


@pytest.mark.parametrize(
  "name",
  ["data", "deploy", "keras3", "models", "quantization", "reporting", "sweeps", "training", "losses", "objectives"],
)
def test_subpackages_are_attributes(name):
  assert getattr(tfkd, name).__name__ == f"tfkd.{name}"


def test_an_unknown_name_is_an_attribute_error():
  with pytest.raises(AttributeError, match="'destiller'"):
    tfkd.destiller  # noqa: B018


def _public():
  """(name, value) of every function and class that a package of tfkd exports."""
  for module in pkgutil.iter_modules(tfkd.__path__, "tfkd."):
    package = importlib.import_module(module.name)
    for name, value in vars(package).items():
      if not name.startswith("_") and callable(value) and getattr(value, "__module__", "").startswith("tfkd."):
        yield f"{module.name}.{name}", value


def test_public_functions_and_classes_have_docstrings():
  public = dict(_public())
  assert len(public) > 150
  assert not [name for name, value in public.items() if not (value.__doc__ or "").strip()]


def _unhinted(function):
  """Names of the parameters of a function that lack a type hint, and "return"."""
  signature = inspect.signature(function)
  parameters = [p for p in signature.parameters.values() if p.name not in ("self", "cls")]
  missing = [p.name for p in parameters if p.annotation is inspect.Parameter.empty]
  is_init = function.__name__ == "__init__"
  return missing + ["return"] * (signature.return_annotation is inspect.Signature.empty and not is_init)


def _functions(name, value):
  """(name, function) of a public function, or of the constructor and the public methods that a class defines."""
  if inspect.isfunction(value):
    yield name, value
  elif inspect.isclass(value):
    for method, member in vars(value).items():
      function = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
      own = inspect.isfunction(function) and function.__module__ == value.__module__
      if own and (method == "__init__" or not method.startswith("_")):
        yield f"{name}.{method}", function


def test_public_functions_and_methods_have_type_hints():
  functions = [pair for name, value in _public() for pair in _functions(name, value)]
  assert len(functions) > 300
  wrong = [
    f"{name}: {', '.join(missing)}" for name, function in functions for missing in [_unhinted(function)] if missing
  ]
  assert not wrong, "\n".join(wrong)
