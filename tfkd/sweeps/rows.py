"""The columns of the results."""

import os
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfkd import __version__, quantization
from tfkd.sweeps.configuration import FLOAT, SweepConfig
from tfkd.sweeps.examples import Examples
from tfkd.sweeps.networks import name_of
from tfkd.sweeps.outputs import Outputs

TEACHER = {
  "role": "teacher",
  "experiment": None,
  "method": "labels",
  "scheme": FLOAT,
  "temperature": None,
  "seed": 0,
}
"""Fields that identify the row of the teacher."""


def teacher_row(outputs: Outputs, measured: Mapping[str, float]) -> dict[str, Any]:
  """Returns identity and measurements of a teacher.

  Args:
    outputs: of the networks.
    measured: measurements of `Outputs.measured` or `Outputs.evaluate`. A teacher agrees with itself.
  """
  agreements = {name: 1.0 for name in outputs.measurements if name.endswith("agreement")}
  return TEACHER | dict(measured) | agreements


def last_validation(history: Mapping[str, Sequence[float]]) -> dict[str, float]:
  """Returns the measurements of the last validation, which is that of the trained model.

  Args:
    history: of `tfkd.training.fit`.
  """
  return {name.removeprefix("val_"): values[-1] for name, values in history.items() if name.startswith("val_")}


def complete(
  row: Mapping[str, Any],
  model: Any,
  config: SweepConfig,
  examples: Examples,
  history: Mapping[str, Sequence[float]],
  seconds: float,
  split: str = "train",
) -> dict[str, Any]:
  """Adds sizes, history, configuration, versions and speed to a row.

  Args:
    row: identity and measurements.
    model: the trained model; a teacher that is no Keras model has no sizes.
    config, examples: of the sweep.
    history: of the fit.
    seconds: duration of the fit, with tracing and the validation after each epoch; images_per_second counts training
      examples only.
    split: the split that it was trained on.
  """
  num_train = examples.num_examples(split)
  sizes = quantization.sizes(model) if isinstance(model, keras.Model) else {}
  epochs = len(history.get("loss", ()))
  return (
    sizes
    | dict(row)
    | {"history": {name: [round(float(value), 6) for value in values] for name, values in history.items()}}
    | {"dataset": examples.name, "config": published(config), "versions": _versions()}
    | {"seconds": round(seconds, 2), "images_per_second": round(epochs * num_train / seconds, 1)}
    | {"test_images": examples.num_test, "train_images": num_train}
  )


def published(config: SweepConfig) -> dict[str, Any]:
  """Returns a configuration as JSON values without the paths of this machine: of files, only the names remain."""
  fields = config._asdict()
  fields |= {name: name_of(fields[name]) for name in ("teacher", "student")}
  for name in ("data_dir", "teacher_checkpoint", "student_checkpoint"):
    if fields[name]:
      fields[name] = os.path.basename(os.path.normpath(fields[name]))
  return fields


def _versions():
  return {
    "tfkd": __version__,
    "tensorflow": tf.__version__,
    "tf_keras": keras.__version__,
    "python": platform.python_version(),
  }
