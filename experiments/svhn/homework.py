"""Wiring shared by the homework's scripts: flags to sweep, sweep to report."""

import math
import os

from absl import flags

from experiments import run_flags
from experiments.svhn.questions import students
from experiments.svhn.report import write_report
from tfkd.sweeps import Sweep

DEPLOYED_SCHEME = "w8a8"
_COMMON = {
  "dataset": "house_numbers", "scheme": "w2a1", "teacher": "svhn_cnn", "student": "svhn_cnn", "epochs": 4,
  "teacher_epochs": 5,
}  # fmt: skip
PRESETS = {
  # One seed at three temperatures: about ten minutes on two cores.
  "quick": _COMMON | {"seeds": [0], "temperatures": [5.0, 15.0, 50.0]},
  # What tables are made of: under an hour on two cores.
  "full": _COMMON | {"seeds": [0, 1, 2], "temperatures": [5.0, 15.0, 25.0, 50.0, 100.0]},
}

flags.DEFINE_list("temperatures", None, "Temperatures, separated by commas. [preset]")
flags.DEFINE_float("soft_weight", 1.0, "Weight of the soft loss beside a hard loss of weight 1.", lower_bound=0.0)
flags.register_validator(
  "temperatures",
  run_flags.every(float, lambda t: t > 0 and math.isfinite(t)),
  "expected positive finite numbers, separated by commas",
)


def run(argv, questions, deployed=False):
  """Trains what the questions ask for and the workdir lacks, then writes and prints the report.

  Args:
    argv: as absl gives it; stray arguments are an error.
    questions: list of "q1" to "q4"; empty for the teacher alone.
    deployed: also answer q1 with w8a8 students, which leave as integer TFLite files.
  """
  run_flags.start(argv, PRESETS)
  given = flags.FLAGS
  temperatures = sorted({float(t) for t in given.temperatures})
  workdir = given.workdir or os.path.join("runs", "svhn", given.dataset)
  with run_flags.errors_without_traceback():
    sweep = Sweep(workdir, run_flags.training(), overwrite=given.overwrite)
    sweep.train_teacher()
    wanted = [
      student
      for question in questions
      for student in students(question, given.scheme, temperatures, run_flags.seeds(), given.soft_weight)
    ]
    if deployed and given.scheme != DEPLOYED_SCHEME:
      wanted += students("q1", DEPLOYED_SCHEME, [], run_flags.seeds(), given.soft_weight)
    sweep.run(wanted)
  if sweep.writes:
    print(write_report(workdir, sweep.results.rows(), given.scheme))  # noqa: T201  (the answer)
