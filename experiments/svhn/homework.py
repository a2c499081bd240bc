"""Wiring shared by the homework's scripts: flags to sweep, sweep to report."""

import os
import sys

from absl import app, flags, logging

from experiments import run_flags
from experiments.svhn.questions import students
from experiments.svhn.report import write_report
from tfkd.models import svhn_cnn
from tfkd.train import Sweep

DEPLOYED_SCHEME = "w8a8"


def run(argv, questions, deployed=False):
  """Trains what the questions ask for and the workdir lacks, then writes and prints the report.

  Args:
    argv: as absl gives it; stray arguments are an error.
    questions: list of "q1" to "q4"; empty for the teacher alone.
    deployed: also answer q1 with w8a8 students, which leave as integer TFLite files.
  """
  if len(argv) > 1:
    raise app.UsageError(f"unknown arguments: {' '.join(argv[1:])}. Flags are written --name=value.")
  run_flags.show_progress()
  given = flags.FLAGS
  workdir = given.workdir or os.path.join("runs", "svhn", given.dataset)
  try:
    sweep = Sweep(workdir, run_flags.training(), _build_model, given.overwrite)
    sweep.train_teacher()
    wanted = [
      student
      for question in questions
      for student in students(question, given.scheme, run_flags.temperatures(), run_flags.seeds(), given.soft_weight)
    ]
    if deployed and given.scheme != DEPLOYED_SCHEME:
      wanted += students("q1", DEPLOYED_SCHEME, [], run_flags.seeds(), given.soft_weight)
    sweep.run(wanted)
  except (ValueError, OSError, FloatingPointError) as error:
    # What was found, expected and to be done is in the message; a traceback would hide it.
    logging.error("%s", error)
    sys.exit(1)
  print(write_report(workdir, sweep.results.rows(), given.scheme))  # noqa: T201  (the answer)


def _build_model(num_classes, image_shape):
  return svhn_cnn(num_classes, image_shape)
