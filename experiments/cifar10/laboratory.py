"""The shared part of the CIFAR-10 laboratories: students on labels, on soft targets and on features; flags; presets."""

import functools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from absl import flags

from experiments import response as response_based
from experiments import run_flags
from experiments._run import Experiment
from experiments.cifar10.report import write_report
from tfkd import objectives
from tfkd.features.connectors import ALIGNMENTS
from tfkd.sweeps import FLOAT, StudentSpec, Sweep

FEATURE_LOSSES = {
  "normalized": objectives.NormalizedFeatureMatching,
  "mse": objectives.Hint,
  "l2": objectives.Euclidean,
}

flags.DEFINE_list(
  "grid",
  None,
  "Settings <temperature>:<alpha> of the heat map's students, separated by commas; empty for none. [preset]",
)
flags.DEFINE_list("grid_seeds", None, "Seeds of the grid's students, separated by commas. [preset]")
flags.DEFINE_list("stages", None, "Layers whose features are matched, separated by commas. [preset]")
flags.DEFINE_enum(
  "feature_loss",
  None,
  FEATURE_LOSSES,
  "normalized: squared differences of features with unit L2 norm over channels; mse: squared differences of features; "
  "l2: L2 norm of the difference for each image. Averaged over the stages. [preset]",
)
flags.DEFINE_enum(
  "alignment", None, ALIGNMENTS[1:], "Method that resizes feature maps of different height and width. [preset]"
)
flags.DEFINE_float("feature_weight", None, "Weight of the feature loss. [preset]", lower_bound=0.0)
flags.DEFINE_float(
  "feature_hard_weight", None, "Weight of the hard loss of the feature-based student. [preset]", lower_bound=0.0
)

_RECIPE = {
  "dataset": "cifar10",
  "scheme": FLOAT,
  "augment": True,
  "optimizer": "sgd",
  "learning_rate": 0.1,
  "teacher_learning_rate": 0.1,
  "weight_decay": 5e-3,
  "alignment": "average_pool",
}
_SIZES = {
  # One seed on 5,000 photographs: a few minutes on two cores.
  "quick": {"limit_train": 5_000, "epochs": 4, "seeds": [0], "grid": [], "grid_seeds": [0]},
  # Under an hour on two cores.
  "cpu": {"limit_train": 20_000, "seeds": [0, 1, 2], "grid_seeds": [0]},
  # The laboratory's sizes, for a GPU.
  "full": {
    "teacher_epochs": 200,
    "epochs": 200,
    "seeds": [0, 1, 2],
    "grid_seeds": [0, 1, 2],
    "mixed_precision": "bfloat16",
  },
}


class Setting(NamedTuple):
  """One cell of the grid."""

  temperature: float
  alpha: float


def presets(choices: Mapping[str, Any], sizes: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
  """Returns presets for `run_flags.start`, which combine the shared recipe and sizes with those of one laboratory.

  Args:
    choices: values of flags, in all presets of this laboratory.
    sizes: values of flags for each preset.
  """
  return {name: _RECIPE | choices | shared | sizes[name] for name, shared in _SIZES.items()}


def experiment(
  name: str,
  presets: Mapping[str, Mapping[str, Any]],
  published: Mapping[str, tuple[float, float]],
  published_grid: Mapping[tuple[float, float], float],
) -> Experiment:
  """Returns the script of a laboratory.

  Args:
    name: of the laboratory, for the work directory.
    presets: see `presets`.
    published: method to (test loss, test accuracy in percent).
    published_grid: (temperature, alpha) to test accuracy in percent, as far as it was reported.
  """
  return Experiment(name, presets, _students, functools.partial(_write_report, published, published_grid))


def _students(sweep: Sweep) -> list[StudentSpec]:
  """Lists students seed by seed, so that an interrupted sweep has complete seeds: the comparison, then the grid."""
  students = [student(seed) for seed in run_flags.seeds() for student in _compared().values()]
  students += [response(seed, *setting) for seed in run_flags.seeds("grid_seeds") for setting in _grid()]
  return list({student.name: student for student in students}.values())


def _write_report(published, published_grid, sweep: Sweep, _: None) -> str:
  rows = {"teacher": sweep.results.find(role="teacher")}
  rows |= {method: sweep.rows(student(0)) for method, student in _compared().items()}
  seeds = run_flags.seeds("grid_seeds")  # The comparison may have trained further seeds of one setting.
  grid = {setting: [row for row in sweep.rows(response(0, *setting)) if row["seed"] in seeds] for setting in _grid()}
  return write_report(sweep.path(), published, published_grid, rows, grid)


def _compared():
  """Functions from seed to student of the methods that the laboratory compares."""
  given = flags.FLAGS
  return {"labels": labels, "response": lambda seed: response(seed, given.temperature, given.alpha), "feature": feature}


def _grid() -> list[Setting]:
  given = flags.FLAGS
  chosen = Setting(given.temperature, given.alpha)
  return sorted({_setting(text) for text in given.grid} | {chosen}) if given.grid else []


def _setting(text: str) -> Setting:
  temperature, alpha = map(float, text.split(":"))
  return Setting(temperature, alpha)


def _is_grid(values: list[str] | None) -> bool:
  is_setting = run_flags.every(_setting, lambda s: 0 < s.temperature < math.inf and 0 <= s.alpha <= 1)
  return values == [] or is_setting(values)


flags.register_validator("grid", _is_grid, "expected <temperature>:<alpha>, separated by commas, as 4:0.3,8:0.7")
run_flags.register_seeds("grid_seeds")


def labels(seed: int) -> StudentSpec:
  """Returns the student from scratch."""
  return StudentSpec("laboratory", "labels", flags.FLAGS.scheme, seed)


def response(seed: int, temperature: float, alpha: float) -> StudentSpec:
  """Returns the student of soft targets."""
  return response_based.response("laboratory", "response", seed, temperature, alpha)


def feature(seed: int) -> StudentSpec:
  """Returns the student of feature_weight * mean over stages of the feature loss + feature_hard_weight * hard loss."""
  given = flags.FLAGS
  match = FEATURE_LOSSES[given.feature_loss](
    given.stages,
    given.stages,
    weight=given.feature_weight / len(given.stages),
    connector="conv1x1",
    alignment=given.alignment,
  )
  choices = {name: given[name].value for name in ("feature_loss", "alignment", "feature_weight", "feature_hard_weight")}
  choices["stages"] = "+".join(given.stages)
  return StudentSpec("laboratory", "feature", given.scheme, seed, (match,), given.feature_hard_weight, choices=choices)
