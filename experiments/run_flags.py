"""Flags that every experiment has. A script defines only its own beside them."""

from absl import flags, logging

from tfkd import data
from tfkd.quantization import parse_scheme
from tfkd.train import FLOAT, STRATEGIES, Training

PRESETS = {
  # One seed at three temperatures: about ten minutes on two cores.
  "quick": {"seeds": [0], "temperatures": [5.0, 15.0, 50.0], "epochs": 4, "teacher_epochs": 5},
  # What tables are made of: under an hour on two cores.
  "full": {"seeds": [0, 1, 2], "temperatures": [5.0, 15.0, 25.0, 50.0, 100.0], "epochs": 4, "teacher_epochs": 5},
}

flags.DEFINE_enum("preset", "quick", PRESETS, "Sizes of the run; the flags below override single values of it.")
flags.DEFINE_enum("dataset", "house_numbers", data.DATASETS, "Data set. house_numbers is drawn, and needs no download.")
flags.DEFINE_string(
  "data_dir", None, "Folder (cifar10: or archive) with the data; by default it is downloaded or drawn."
)
flags.DEFINE_string("workdir", None, "Folder for results; by default runs/<homework>/<dataset>.")
flags.DEFINE_string("scheme", "w2a1", "The students: w<bits of a weight>a<bits of a feature>, or float.")
flags.DEFINE_list("temperatures", None, "Temperatures, separated by commas. [preset]")
flags.DEFINE_float("soft_weight", 1.0, "Weight of the soft loss beside a hard loss of weight 1.", lower_bound=0.0)
flags.DEFINE_list("seeds", None, "Seeds, separated by commas; one student for each. [preset]")
flags.DEFINE_integer("epochs", None, "Epochs of a student. [preset]", lower_bound=1)
flags.DEFINE_integer("teacher_epochs", None, "Epochs of the teacher. [preset]", lower_bound=1)
flags.DEFINE_integer("batch_size", 128, "Examples of a step, over all replicas.", lower_bound=1)
flags.DEFINE_float(
  "learning_rate", 3e-3, "Peak learning rate of a student (Adam, warm-up, cosine decay).", lower_bound=0.0
)
flags.DEFINE_enum("strategy", "auto", STRATEGIES, "Devices: auto takes all GPUs, or else the CPU.")
flags.DEFINE_enum("mixed_precision", "none", ("none", "float16", "bfloat16"), "Arithmetic of the teacher.")
flags.DEFINE_integer("limit_train", None, "Use only so many training images.", lower_bound=1)
flags.DEFINE_boolean("overwrite", False, "Remove the workdir's earlier results first.")


def _all(convert, check):
  """A validator for a list: it is not empty, and each value converts and passes; None means the preset's."""

  def run(values):
    try:
      return values is None or (bool(values) and all(check(convert(value)) for value in values))
    except ValueError:
      return False

  return run


def _is_scheme(name):
  try:
    if name != FLOAT:
      parse_scheme(name)
  except ValueError as error:
    raise flags.ValidationError(str(error)) from error
  return True


flags.register_validator(
  "temperatures", _all(float, lambda t: 0 < t < float("inf")), "expected positive finite numbers, separated by commas"
)
flags.register_validator("seeds", _all(int, lambda s: s >= 0), "expected whole numbers >= 0, separated by commas")
flags.register_validator("scheme", _is_scheme)


def _value(name):
  given = flags.FLAGS[name].value
  return PRESETS[flags.FLAGS.preset][name] if given is None else given


def training():
  """The `Training` that the flags ask for."""
  given = flags.FLAGS
  return Training(
    dataset=given.dataset,
    data_dir=given.data_dir,
    limit_train=given.limit_train,
    epochs=_value("epochs"),
    teacher_epochs=_value("teacher_epochs"),
    batch_size=given.batch_size,
    learning_rate=given.learning_rate,
    soft_weight=given.soft_weight,
    mixed_precision=given.mixed_precision,
    strategy=given.strategy,
  )


def temperatures():
  """List of float."""
  return sorted({float(t) for t in _value("temperatures")})


def seeds():
  """List of int."""
  return sorted({int(s) for s in _value("seeds")})


def show_progress():
  """Lets log lines of level info through, which absl hides by default."""
  logging.set_verbosity(logging.INFO)
