"""TensorBoard's HParams page: one line per student, with its choices and its measurements on the test set."""

import os
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from tfkd.sweeps.configuration import StudentSpec

_NAMES = ("experiment", "method", "scheme", "temperature", "seed", "epochs")


def declare(
  logdir: str, students: Sequence[StudentSpec], rows: Sequence[Mapping[str, Any]], measurements: Sequence[str]
) -> None:
  """Declares the columns of the page, which would otherwise show every metric of every epoch.

  Args:
    logdir: directory for the declaration alone; emptied first.
    students: the students to be trained.
    rows: results of earlier runs in this work directory, whose students may have other choices.
    measurements: names of the columns of results.
  """
  from tensorboard.plugins.hparams import api as hparams

  if os.path.isdir(logdir):
    shutil.rmtree(logdir)
  choices = {name for student in students for name in student.key["choices"]}
  choices |= {name for row in rows for name in row.get("choices", ())}
  with tf.summary.create_file_writer(logdir).as_default():
    hparams.hparams_config(
      hparams=[hparams.HParam(name) for name in [*_NAMES, *sorted(choices.difference(_NAMES))]],
      metrics=[hparams.Metric(f"test/{name}", display_name=f"test {name}") for name in measurements],
    )


def log(logdir: str, student: StudentSpec, row: Mapping[str, Any], epochs: int, measurements: Sequence[str]) -> None:
  """Writes the line of a student.

  Args:
    logdir: directory of the student's logs.
    student: the student.
    row: its results.
    epochs: number of epochs of students that have none of their own.
    measurements: names of the columns of results.
  """
  from tensorboard.plugins.hparams import api as hparams

  values = {"experiment": student.experiment, "method": student.method, "scheme": student.scheme, "seed": student.seed}
  values |= {"temperature": student.temperature or 0.0, "epochs": epochs, **student.key["choices"]}
  with tf.summary.create_file_writer(logdir).as_default():
    hparams.hparams(values, trial_id=student.name)
    for name in (name for name in measurements if name in row):
      tf.summary.scalar(f"test/{name}", row[name], step=student.epochs or epochs)
