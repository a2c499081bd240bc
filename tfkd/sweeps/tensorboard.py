"""TensorBoard's HParams page: a line for each student, with its choices and what the test set says."""

import os
import shutil

import tensorflow as tf

_NAMES = ("experiment", "method", "scheme", "temperature", "seed", "epochs")
_METRICS = ("accuracy", "loss", "agreement")


def declare(logdir, students, rows):
  """Tells the page its columns: without this it shows every metric of every epoch.

  Args:
    logdir: folder for this alone; emptied first.
    students: list of `StudentSpec`, to be trained.
    rows: list of the results that are there. Scripts that share a workdir have different choices.
  """
  from tensorboard.plugins.hparams import api as hparams

  if os.path.isdir(logdir):
    shutil.rmtree(logdir)
  choices = {name for student in students for name in student.key["choices"]}
  choices |= {name for row in rows for name in row.get("choices", ())}
  with tf.summary.create_file_writer(logdir).as_default():
    hparams.hparams_config(
      hparams=[hparams.HParam(name) for name in [*_NAMES, *sorted(choices.difference(_NAMES))]],
      metrics=[hparams.Metric(f"test/{name}", display_name=f"test {name}") for name in _METRICS],
    )


def log(logdir, student, row, epochs):
  """Writes a student's line.

  Args:
    logdir: the student's own.
    student: `StudentSpec`.
    row: its results.
    epochs: the training's, where the student has none of its own.
  """
  from tensorboard.plugins.hparams import api as hparams

  values = {"experiment": student.experiment, "method": student.method, "scheme": student.scheme, "seed": student.seed}
  values |= {"temperature": student.temperature or 0.0, "epochs": epochs, **student.key["choices"]}
  with tf.summary.create_file_writer(logdir).as_default():
    hparams.hparams(values, trial_id=student.name)
    for name in _METRICS:
      tf.summary.scalar(f"test/{name}", row[name], step=student.epochs or epochs)
