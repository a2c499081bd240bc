"""What the CIFAR-10 laboratories share: a student on labels, on the teacher's response and on its features."""

import math
import os
from typing import NamedTuple

from absl import flags

from experiments import response as response_based
from experiments import run_flags
from experiments.cifar10.report import write_report
from tfkd import objectives
from tfkd.features.connectors import ALIGNMENTS
from tfkd.sweeps import FLOAT, StudentSpec, Sweep

FEATURE_LOSSES = {
  "normalized": objectives.NormalizedFeatureMatching,
  "mse": objectives.Hint,
  "l2": objectives.Euclidean,
}

flags.adopt_module_key_flags(run_flags)  # So that --help lists them.
flags.adopt_module_key_flags(response_based)
flags.DEFINE_list(
  "grid", None, "<temperature>:<alpha> of response-based students for the heat map; empty for none. [preset]"
)
flags.DEFINE_list("grid_seeds", None, "Seeds of the grid's students. [preset]")
flags.DEFINE_list("stages", None, "Layers whose features are matched. [preset]")
flags.DEFINE_enum(
  "feature_loss", None, FEATURE_LOSSES,
  "normalized: squared differences of features with unit L2 norm over channels; mse: of features as they are; l2: the "
  "root of their sum for each image. Mean over the stages. [preset]",
)  # fmt: skip
flags.DEFINE_enum(
  "alignment", None, ALIGNMENTS[1:], "How maps of different height and width are brought together. [preset]"
)
flags.DEFINE_float("feature_weight", None, "Weight of the feature loss. [preset]", lower_bound=0.0)
flags.DEFINE_float("feature_hard_weight", None, "Weight of the labels beside it. [preset]", lower_bound=0.0)


_RECIPE = {
  "dataset": "cifar10", "scheme": FLOAT, "augment": True, "optimizer": "sgd", "learning_rate": 0.1,
  "teacher_learning_rate": 0.1, "weight_decay": 5e-3, "alignment": "average_pool",
}  # fmt: skip
_SIZES = {
  # One seed on 5,000 photographs: a few minutes on two cores.
  "quick": {"limit_train": 5_000, "epochs": 4, "seeds": [0], "grid": [], "grid_seeds": [0]},
  # Under an hour on two cores.
  "cpu": {"limit_train": 20_000, "seeds": [0, 1, 2], "grid_seeds": [0]},
  # The laboratory's size, for a GPU.
  "full": {
    "teacher_epochs": 200, "epochs": 200, "seeds": [0, 1, 2], "grid_seeds": [0, 1, 2], "mixed_precision": "bfloat16",
  },
}  # fmt: skip


def presets(choices, sizes):
  """What `run_flags.start` takes: the recipe of both laboratories, one's own choices, and the sizes of both.

  Args:
    choices: dict from flag to value, for all presets.
    sizes: dict from preset to dict from flag to value.
  """
  return {name: _RECIPE | choices | shared | sizes[name] for name, shared in _SIZES.items()}


class Laboratory(NamedTuple):
  """What one report says."""

  name: str
  presets: dict
  published: dict
  """From method to (test loss, test accuracy in percent)."""
  published_grid: dict
  """From (temperature, alpha) to test accuracy in percent, as far as it was reported."""


def _setting(text):
  temperature, alpha = map(float, text.split(":"))
  return temperature, alpha


def _is_setting(setting):
  return 0 < setting[0] < math.inf and 0 <= setting[1] <= 1


def _is_grid(values):
  return values == [] or run_flags.every(_setting, _is_setting)(values)


flags.register_validator("grid", _is_grid, "expected <temperature>:<alpha>, separated by commas, as 4:0.3,8:0.7")
run_flags.register_seeds("grid_seeds")


def run(argv, laboratory):
  """Trains the teacher and the students that the workdir lacks, then writes and prints the report.

  Args:
    argv: as absl gives it; stray arguments are an error.
    laboratory: `Laboratory`.
  """
  run_flags.start(argv, laboratory.presets)
  given = flags.FLAGS
  workdir = given.workdir or os.path.join("runs", laboratory.name, given.dataset)
  seeds, chosen = run_flags.seeds(), (given.temperature, given.alpha)
  compared = {"labels": labels, "response": lambda seed: response(seed, *chosen), "feature": feature}
  grid_seeds = run_flags.seeds("grid_seeds")
  grid = sorted({_setting(text) for text in given.grid} | {chosen}) if given.grid else []
  # Seed by seed, so that an interrupted sweep has whole seeds; the comparison before the grid, which shares a setting.
  students = [student(seed) for seed in seeds for student in compared.values()]
  students += [response(seed, *setting) for seed in grid_seeds for setting in grid]
  with run_flags.errors_without_traceback():
    sweep = Sweep(workdir, run_flags.training(), overwrite=given.overwrite)
    sweep.run(list({student.name: student for student in students}.values()))
  if not sweep.writes:
    return
  rows = {"teacher": sweep.results.find(role="teacher")}
  rows |= {method: sweep.rows(student(0)) for method, student in compared.items()}
  # All settings from the same seeds.
  responses = {
    setting: [row for row in sweep.rows(response(0, *setting)) if row["seed"] in grid_seeds] for setting in grid
  }
  print(write_report(workdir, laboratory, rows, responses))  # noqa: T201  (the answer)


def labels(seed):
  return StudentSpec("laboratory", "labels", flags.FLAGS.scheme, seed)


def response(seed, temperature, alpha):
  return response_based.response("laboratory", "response", seed, temperature, alpha)


def feature(seed):
  """Learns from feature_weight * mean over stages of the feature loss + feature_hard_weight * cross-entropy."""
  given = flags.FLAGS
  match = FEATURE_LOSSES[given.feature_loss](
    given.stages, given.stages, weight=given.feature_weight / len(given.stages), connector="conv1x1",
    alignment=given.alignment,
  )  # fmt: skip
  choices = {name: given[name].value for name in ("feature_loss", "alignment", "feature_weight", "feature_hard_weight")}
  choices["stages"] = "+".join(given.stages)
  return StudentSpec("laboratory", "feature", given.scheme, seed, (match,), given.feature_hard_weight, choices=choices)
