"""The Food-11 homework: its four students, its limit of parameters, its flags and presets."""

import functools
from collections.abc import Callable
from typing import Any

import tf_keras as keras
from absl import flags

from experiments import response, run_flags
from experiments._run import Experiment
from experiments.food11.report import write_report
from tfkd import data, models, objectives, quantization
from tfkd.sweeps import FLOAT, StudentSpec, Sweep

METHODS = ("simple", "medium", "strong", "boss")
_EXPERIMENT = "compression"
_STAGES = ["layer2", "layer3"]
_EMBEDDING = "embedding"

_COMMON = {
  "dataset": "food11",
  "scheme": FLOAT,
  "student": "plain_cnn",
  "strong_student": "depthwise_cnn",
  "augment": True,
  "optimizer": "sgd",
  "learning_rate": 0.1,
  "teacher_learning_rate": 0.1,
  "weight_decay": 5e-3,
  "temperature": 5.0,
  "alpha": 0.5,
}
# A teacher with a quarter of the channels, for machines without a GPU.
_NARROW = _COMMON | {"teacher": "resnet18x0.25"}
PRESETS = {
  # One seed: minutes on two cores with small images.
  "quick": _NARROW | {"limit_train": 5_000, "teacher_epochs": 5, "epochs": 3, "strong_epochs": 5, "seeds": [0]},
  # Under an hour on two cores with small images.
  "cpu": _NARROW | {"teacher_epochs": 12, "epochs": 8, "strong_epochs": 12, "seeds": [0, 1, 2]},
  # The homework's sizes, for a GPU.
  "full": _COMMON
  | {
    "teacher": "resnet18",
    "teacher_epochs": 100,
    "epochs": 50,
    "strong_epochs": 200,
    "seeds": [0, 1, 2],
    "mixed_precision": "bfloat16",
  },
}

flags.DEFINE_integer(
  "max_parameters", 60_000, "Largest number of trainable parameters of a student; larger students are refused.", 1
)
flags.DEFINE_string("strong_student", None, "Network of the students of strong and boss. [preset]")
flags.DEFINE_integer("strong_epochs", None, "Epochs of the students of strong and boss. [preset]", lower_bound=1)
flags.DEFINE_float(
  "hint_weight",
  1.0,
  f"boss: weight of FitNet's hints at {' and '.join(_STAGES)} in the first step; it falls to 0 at the last step.",
  0.0,
)
flags.DEFINE_float("rkd_weight", 5.0, "boss: weight of RKD's distances; its angles have twice this weight.", 0.0)
flags.DEFINE_float("dm_weight", 0.0, "boss: weight of the differences of distances (DM).", 0.0)
flags.register_validator("strong_student", run_flags.parses(models.parse))


def experiment(method: str) -> Experiment:
  """Returns the script of one baseline, of `METHODS`. Its report shows all baselines that the work directory has."""
  return Experiment(
    "food11",
    PRESETS,
    lambda sweep: [student(method, seed, sweep.steps) for seed in run_flags.seeds()],
    _write_report,
    check=functools.partial(_check_parameters, method),
  )


def _write_report(sweep: Sweep, _: None) -> str:
  (teacher,) = sweep.results.find(role="teacher")
  rows = {method: found for method in METHODS if (found := sweep.rows(student(method, 0, sweep.steps)))}
  return write_report(sweep.path(), teacher, rows)


def student(method: str, seed: int, steps: Callable[[int], int]) -> StudentSpec:
  """Returns the student of a baseline; see the script of the same name.

  Args:
    method: of `METHODS`.
    seed: seed of the student.
    steps: maps epochs to optimizer steps, as `Sweep.steps` does.
  """
  given = flags.FLAGS
  if method == "simple":
    return StudentSpec(_EXPERIMENT, method, given.scheme, seed)
  soft_targets = (_EXPERIMENT, method, seed, given.temperature, given.alpha)
  if method == "medium":
    return response.response(*soft_targets)
  strong = {"network": given.strong_student, "epochs": given.strong_epochs}
  if method == "strong":
    return response.response(*soft_targets, **strong)
  weights = {name: given[name].value for name in ("hint_weight", "rkd_weight", "dm_weight")}
  return response.response(*soft_targets, _features(steps(given.strong_epochs), **weights), weights, **strong)


def _features(steps: int, hint_weight: float, rkd_weight: float, dm_weight: float) -> tuple[objectives.Objective, ...]:
  features: list[Any] = []
  if hint_weight:
    # Hints dominate the first steps, as in the first stage of FitNets; at full weight they would harm the last steps.
    falling = keras.optimizers.schedules.PolynomialDecay(hint_weight / len(_STAGES), steps, end_learning_rate=0.0)
    features.append(objectives.Hint(_STAGES, _STAGES, weight=falling, connector="conv1x1"))
  if rkd_weight:
    features.append(objectives.RKDDistance(_EMBEDDING, _EMBEDDING, weight=rkd_weight))
    features.append(objectives.RKDAngle(_EMBEDDING, _EMBEDDING, weight=2 * rkd_weight))
  if dm_weight:
    features.append(objectives.DistanceMetric(_EMBEDDING, _EMBEDDING, weight=dm_weight, connector="linear"))
  return tuple(features)


def _check_parameters(method: str) -> None:
  """Refuses a student above the limit of parameters.

  Raises:
    ValueError: the student has too many parameters; the message contains the table of its layers.
  """
  given = flags.FLAGS
  network = given.student if method in ("simple", "medium") else given.strong_student
  info = data.info(given.dataset, image_size=given.image_size, on_bad_image=given.on_bad_image)
  model = models.build(network, len(info.classes), info.image_shape)
  parameters = quantization.sizes(model)["trainable_parameters"]
  if parameters > given.max_parameters:
    lines = []
    model.summary(print_fn=lambda line, line_break=True: lines.append(line))
    raise ValueError(
      f"{network} has {parameters:,} trainable parameters, more than --max_parameters={given.max_parameters:,}:\n"
      + "\n".join(lines)
    )
