"""What the homework's scripts share: its four students, their limit of parameters, and its presets."""

import os

import tf_keras as keras
from absl import flags

from experiments import response, run_flags
from experiments.food11.report import write_report
from tfkd import data, models, objectives, quantization
from tfkd.sweeps import FLOAT, StudentSpec, Sweep

METHODS = ("simple", "medium", "strong", "boss")
_QUESTION = "compression"
_STAGES = ["layer2", "layer3"]
_EMBEDDING = "embedding"

_COMMON = {
  "dataset": "food11", "scheme": FLOAT, "student": "plain_cnn", "strong_student": "depthwise_cnn", "augment": True,
  "optimizer": "sgd", "learning_rate": 0.1, "teacher_learning_rate": 0.1, "weight_decay": 5e-3, "temperature": 5.0,
  "alpha": 0.5,
}  # fmt: skip
# A quarter of the channels, where there is no GPU.
_NARROW = _COMMON | {"teacher": "resnet18x0.25"}
PRESETS = {
  # One seed: minutes on two cores with small images.
  "quick": _NARROW | {"limit_train": 5_000, "teacher_epochs": 5, "epochs": 3, "strong_epochs": 5, "seeds": [0]},
  # Under an hour on two cores with small images.
  "cpu": _NARROW | {"teacher_epochs": 12, "epochs": 8, "strong_epochs": 12, "seeds": [0, 1, 2]},
  # The homework's size, for a GPU.
  "full": _COMMON | {
    "teacher": "resnet18", "teacher_epochs": 100, "epochs": 50, "strong_epochs": 200, "seeds": [0, 1, 2],
    "mixed_precision": "bfloat16",
  },
}  # fmt: skip

flags.adopt_module_key_flags(run_flags)
flags.adopt_module_key_flags(response)
flags.DEFINE_integer(
  "max_parameters", 60_000, "Trainable parameters, as the homework counts; students with more are refused.", 1
)
flags.DEFINE_string("strong_student", None, "Network of strong and boss. [preset]")
flags.DEFINE_integer("strong_epochs", None, "Their epochs. [preset]", lower_bound=1)
flags.DEFINE_float(
  "hint_weight", 1.0, f"boss: weight of FitNet's hints at {' and '.join(_STAGES)} in the first step; it falls to 0 in "
  "the last.", 0.0
)  # fmt: skip
flags.DEFINE_float("rkd_weight", 5.0, "boss: weight of RKD's distances; its angles have twice as much.", 0.0)
flags.DEFINE_float("dm_weight", 0.0, "boss: weight of differences of distances (DM).", 0.0)
flags.register_validator("strong_student", run_flags.parses(models.parse))


def run(argv, methods):
  """Trains the teacher and the students that the workdir lacks, then writes and prints the report.

  Args:
    argv: as absl gives it; stray arguments are an error.
    methods: of `METHODS`.
  """
  run_flags.start(argv, PRESETS)
  with run_flags.errors_without_traceback():
    for method in methods:
      _check_parameters(flags.FLAGS.student if method in ("simple", "medium") else flags.FLAGS.strong_student)
    sweep = open_sweep()
    sweep.run([student(method, seed, sweep.steps) for seed in run_flags.seeds() for method in methods])
  if not sweep.writes:
    return
  (teacher,) = sweep.results.find(role="teacher")
  rows = {method: found for method in METHODS if (found := sweep.rows(student(method, 0, sweep.steps)))}
  print(write_report(workdir(), teacher, rows))  # noqa: T201  (the answer)


def workdir():
  return flags.FLAGS.workdir or os.path.join("runs", "food11", flags.FLAGS.dataset)


def open_sweep():
  return Sweep(workdir(), run_flags.training(), overwrite=flags.FLAGS.overwrite)


def student(method, seed, steps):
  """The homework's student of a baseline, see the scripts of their names.

  Args:
    method: of `METHODS`.
    seed: int.
    steps: function from epochs to optimizer steps, as `Sweep.steps`.
  """
  given = flags.FLAGS
  if method == "simple":
    return StudentSpec(_QUESTION, method, given.scheme, seed)
  of_response = (_QUESTION, method, seed, given.temperature, given.alpha)
  if method == "medium":
    return response.response(*of_response)
  strong = {"network": given.strong_student, "epochs": given.strong_epochs}
  if method == "strong":
    return response.response(*of_response, **strong)
  weights = {name: given[name].value for name in ("hint_weight", "rkd_weight", "dm_weight")}
  return response.response(*of_response, _features(steps(given.strong_epochs), **weights), weights, **strong)


def _features(steps, hint_weight, rkd_weight, dm_weight):
  features = []
  if hint_weight:
    # Hints lead the first steps, as in FitNets' first stage, and would hold back the last ones.
    falling = keras.optimizers.schedules.PolynomialDecay(hint_weight / len(_STAGES), steps, end_learning_rate=0.0)
    features.append(objectives.Hint(_STAGES, _STAGES, weight=falling, connector="conv1x1"))
  if rkd_weight:
    features.append(objectives.RKDDistance(_EMBEDDING, _EMBEDDING, weight=rkd_weight))
    features.append(objectives.RKDAngle(_EMBEDDING, _EMBEDDING, weight=2 * rkd_weight))
  if dm_weight:
    features.append(objectives.DistanceMetric(_EMBEDDING, _EMBEDDING, weight=dm_weight, connector="linear"))
  return tuple(features)


def _check_parameters(network):
  """Refuses a network above the limit.

  Raises:
    ValueError: with the table of its layers.
  """
  given = flags.FLAGS
  info = data.info(given.dataset, given.image_size, given.on_bad_image)
  model = models.build(network, len(info.classes), info.image_shape)
  parameters = quantization.sizes(model)["trainable_parameters"]
  if parameters > given.max_parameters:
    lines = []
    model.summary(print_fn=lambda line, line_break=True: lines.append(line))
    raise ValueError(
      f"{network} has {parameters:,} trainable parameters, more than --max_parameters={given.max_parameters:,}:\n"
      + "\n".join(lines)
    )
