"""The SVHN homework: its flags, presets, students and report."""

import functools
import math
from collections.abc import Sequence

from absl import flags

from experiments import run_flags
from experiments._run import Experiment
from experiments.svhn.questions import students
from experiments.svhn.report import write_report
from tfkd.sweeps import StudentSpec, Sweep

DEPLOYED_SCHEME = "w8a8"
_COMMON = {
  "dataset": "house_numbers",
  "scheme": "w2a1",
  "teacher": "svhn_cnn",
  "student": "svhn_cnn",
  "epochs": 4,
  "teacher_epochs": 5,
}
PRESETS = {
  # One seed at three temperatures: about ten minutes on two cores.
  "quick": _COMMON | {"seeds": [0], "temperatures": [5.0, 15.0, 50.0]},
  # The sizes of the published tables: under an hour on two cores.
  "full": _COMMON | {"seeds": [0, 1, 2], "temperatures": [5.0, 15.0, 25.0, 50.0, 100.0]},
}

flags.DEFINE_list("temperatures", None, "Temperatures, separated by commas. [preset]")
flags.DEFINE_float(
  "soft_weight", 1.0, "Weight of the soft loss, added to a hard loss of weight 1 (q3, q4).", lower_bound=0.0
)
flags.register_validator(
  "temperatures",
  run_flags.every(float, lambda t: t > 0 and math.isfinite(t)),
  "expected positive finite numbers, separated by commas",
)


def experiment(questions: Sequence[str], deployed: bool = False) -> Experiment:
  """Returns the script that trains the students of some questions.

  Args:
    questions: "q1" to "q4"; empty trains the teacher alone.
    deployed: also trains the students of q1 with w8a8, and exports them to integer TFLite files.
  """
  return Experiment(
    "svhn",
    PRESETS,
    functools.partial(_students, questions, deployed),
    lambda sweep, _: write_report(sweep.path(), sweep.results.rows(), flags.FLAGS.scheme),
  )


def _students(questions: Sequence[str], deployed: bool, sweep: Sweep) -> list[StudentSpec]:
  given, seeds = flags.FLAGS, run_flags.seeds()
  temperatures = sorted({float(t) for t in given.temperatures})
  wanted = [
    student
    for question in questions
    for student in students(question, given.scheme, temperatures, seeds, given.soft_weight)
  ]
  if deployed and given.scheme != DEPLOYED_SCHEME:
    wanted += students("q1", DEPLOYED_SCHEME, [], seeds, given.soft_weight)
  return wanted
