"""The columns of the results."""

import os
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfkd import __version__, quantization
from tfkd.sweeps.configuration import FLOAT, StudentSpec, SweepConfig
from tfkd.sweeps.examples import Examples
from tfkd.sweeps.networks import name_of

TEACHER = {
  "role": "teacher",
  "experiment": None,
  "method": "labels",
  "scheme": FLOAT,
  "temperature": None,
  "seed": 0,
}
"""Fields that identify the row of the teacher."""
METRICS = ("accuracy", "loss", "agreement")
"""Measurements of the trained model on the test set: shares in [0, 1], and the cross-entropy in nats."""


def teacher_row(history: Mapping[str, Sequence[float]]) -> dict[str, Any]:
  """Returns identity and measurements of a teacher.

  Args:
    history: Keras history of a classifier, whose last validation is that of the trained model.
  """
  measured = {"accuracy": history["val_accuracy"][-1], "loss": history["val_loss"][-1], "agreement": 1.0}
  return TEACHER | measured


def student_row(student: StudentSpec, history: Mapping[str, Sequence[float]], agreement: float) -> dict[str, Any]:
  """Returns identity and measurements of a student.

  Args:
    student: the student.
    history: history of a `Distiller`, whose last validation is that of the trained student.
    agreement: share of test examples on which student and teacher choose the same class.
  """
  measured = {"accuracy": history["val_accuracy"][-1], "loss": history["val_hard_loss"][-1], "agreement": agreement}
  return student.key | measured


def complete(
  row: Mapping[str, Any],
  model: keras.Model,
  config: SweepConfig,
  examples: Examples,
  history: Mapping[str, Sequence[float]],
  seconds: float,
) -> dict[str, Any]:
  """Adds sizes, history, configuration, versions and speed to a row.

  Args:
    row: of `teacher_row` or `student_row`.
    model: the trained model.
    config, examples: of the sweep.
    history: of the fit.
    seconds: duration of the fit, with tracing and the validation after each epoch; images_per_second counts training
      examples only.
  """
  epochs = len(history.get("loss", ()))
  return (
    quantization.sizes(model)
    | dict(row)
    | {"history": {name: [round(float(value), 6) for value in values] for name, values in history.items()}}
    | {"dataset": examples.name, "config": published(config), "versions": _versions()}
    | {"seconds": round(seconds, 2), "images_per_second": round(epochs * examples.num_train / seconds, 1)}
    | {"test_images": examples.num_test, "train_images": examples.num_train}
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
