"""Flags that every experiment has. A script defines only its own beside them."""

import contextlib
import re
import signal
import sys

import tensorflow as tf
from absl import app, flags, logging

from tfkd import data, models
from tfkd.data.food11 import ON_BAD_IMAGE
from tfkd.quantization import parse_scheme
from tfkd.sweeps import FLOAT, SweepConfig
from tfkd.training import OPTIMIZERS, SCHEDULES, STRATEGIES

flags.DEFINE_enum(
  "preset", None, ("quick", "cpu", "full"), "Sizes of the run; other flags override single values of it. [script]"
)
flags.DEFINE_enum("dataset", None, data.DATASETS, "Data set. house_numbers is drawn, and needs no download. [script]")
flags.DEFINE_string(
  "data_dir", None, "Folder (cifar10: or archive) with the data; by default it is downloaded or drawn."
)
flags.DEFINE_integer("limit_train", None, "Use only so many training images. [preset]", lower_bound=1)
flags.DEFINE_integer(
  "image_size", None, "food11: height and width that the networks see; by default 224.", lower_bound=8
)
flags.DEFINE_enum("on_bad_image", None, ON_BAD_IMAGE, "food11: what to do with unreadable files; by default an error.")
flags.DEFINE_string("workdir", None, "Folder for results; by default runs/<script>/<dataset>.")
flags.DEFINE_boolean("overwrite", False, "Remove the workdir's earlier results first.")
flags.DEFINE_string(
  "teacher", None, "Network, as resnet20, resnet50x0.125, wrn-16-2, vit_base16@224 or svhn_cnn. [preset]"
)
flags.DEFINE_string(
  "teacher_checkpoint", None, "Weights of a resnet18, 34 or 50 or a vit in place of training: the names of "
  "torchvision, timm or Hugging Face, in a .pth (a state dict) or .safetensors."
)  # fmt: skip
flags.DEFINE_boolean("teacher_head_only", False, "Replace the checkpoint's last layer, and train it alone.")
flags.DEFINE_string("student", None, "Network, likewise. [preset]")
flags.DEFINE_string("student_checkpoint", None, "Weights of students that are pretrained; their last layer is new.")
flags.DEFINE_string("scheme", None, "The students: w<bits of a weight>a<bits of a feature>, or float. [script]")
flags.DEFINE_list("seeds", None, "Seeds, separated by commas; one student for each. [preset]")
flags.DEFINE_integer("epochs", None, "Epochs of a student. [preset]", lower_bound=1)
flags.DEFINE_integer("teacher_epochs", None, "Epochs of the teacher. [preset]", lower_bound=1)
flags.DEFINE_integer("batch_size", 128, "Examples of a step, over all replicas.", lower_bound=1)
flags.DEFINE_enum("optimizer", "adam", OPTIMIZERS, "sgd has momentum 0.9.")
flags.DEFINE_float("learning_rate", 3e-3, "Peak learning rate of a student.", lower_bound=0.0)
flags.DEFINE_float("teacher_learning_rate", 2e-3, "Peak learning rate of the teacher.", lower_bound=0.0)
flags.DEFINE_enum(
  "schedule", "cosine", SCHEDULES, "How the rate falls: to zero, or to a tenth after 62.5, 75 and 87.5 % of the steps."
)
flags.DEFINE_float("warm_up", 0.05, "Share of the steps in which the rate rises.", 0.0, 0.99)
flags.DEFINE_float(
  "weight_decay", 0.0, "Decoupled, of kernels only. PyTorch's 5e-4 with momentum 0.9 is about 5e-3 here.", 0.0
)
flags.DEFINE_boolean(
  "augment", False, "Random crops after padding by 4 pixels, mirrored images where that keeps the class; food11: "
  "random parts, turned, mirrored and tinted. The teacher then runs in every step, and sees the student's images."
)  # fmt: skip
flags.DEFINE_integer(
  "views", None, "augment: so many changes of each image; what the teacher answers to them is computed once and kept. "
  "By default each epoch has new ones.", 1
)  # fmt: skip
flags.DEFINE_float(
  "label_smoothing", 0.0, "Share of a label that is spread over all classes, for teacher and students. A teacher "
  "trained so may teach worse (arXiv:1906.02629).", 0.0, 0.99
)  # fmt: skip
flags.DEFINE_float("mixup", 0.0, "Alpha of mixup, 0 for none. The teacher sees the mixed images.", 0.0)
flags.DEFINE_float("ema", 0.0, "Moving average of the weights, kept at the end: share of the old value.", 0.0, 0.9999)
flags.DEFINE_enum(
  "mixed_precision", "none", ("none", "float16", "bfloat16"), "Arithmetic of teacher and float students."
)
flags.DEFINE_boolean("scale_learning_rate", False, "Multiply learning rates by batch_size / 128.")
flags.DEFINE_enum(
  "strategy", "auto", STRATEGIES, "Devices: auto takes all GPUs, or else the CPU; multi_worker those of all machines "
  "of TF_CONFIG or of a SLURM job step, in step with each other; parameter_server TF_CONFIG's, each at its own pace "
  "(see tfkd.training.launch)."
)  # fmt: skip
flags.DEFINE_float("checkpoint_minutes", 5.0, "A killed run loses at most so much of a fit.", 0.0)
flags.DEFINE_integer("checkpoint_steps", None, "Write a checkpoint after so many steps, too.", 1)
flags.DEFINE_boolean(
  "deterministic", False, "Operations that give the same bits in every run, on GPUs too, where they are slower."
)


def every(convert, check):
  """A validator for a list: it is not empty, and each value converts and passes; None means the preset's."""

  def run(values):
    try:
      return values is None or (bool(values) and all(check(convert(value)) for value in values))
    except ValueError:
      return False

  return run


def parses(parse):
  """A validator: the value is what `parse` takes."""

  def run(value):
    try:
      if value is not None:
        parse(value)
    except ValueError as error:
      raise flags.ValidationError(str(error)) from error
    return True

  return run


def register_seeds(flag):
  """Validates a list flag as seeds, which `seeds` reads."""
  flags.register_validator(flag, every(int, lambda s: s >= 0), "expected whole numbers >= 0, separated by commas")


register_seeds("seeds")
flags.register_validator("scheme", parses(lambda name: name == FLOAT or parse_scheme(name)))
flags.register_validator("teacher", parses(models.parse))
flags.register_validator("student", parses(models.parse))


def start(argv, presets):
  """What every main begins with: refuses stray arguments, completes the flags, and lets log lines through.

  Args:
    argv: as absl gives it.
    presets: dict from name to dict from flag to value; the first is the script's default. Flags that were given keep
      their values.

  Raises:
    absl.app.UsageError: stray arguments, or a preset that this script lacks.
  """
  if len(argv) > 1:
    raise app.UsageError(f"unknown arguments: {' '.join(argv[1:])}. Flags are written --name=value.")
  name = flags.FLAGS.preset or next(iter(presets))
  if name not in presets:
    raise app.UsageError(f"--preset={name} is not one of this script's: {', '.join(presets)}.")
  for flag, value in presets[name].items():
    flags.FLAGS.set_default(flag, value)
  logging.set_verbosity(logging.INFO)  # absl hides them by default.
  if flags.FLAGS.deterministic:
    tf.config.experimental.enable_op_determinism()
    # It would put sums of several terms in another order at every trace.
    tf.config.optimizer.set_experimental_options({"arithmetic_optimization": False})
  # Whatever is done is on disk under its final name; a fit in progress writes a checkpoint before.
  signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))


def training():
  """The `SweepConfig` that the flags ask for."""
  return SweepConfig(**{name: flags.FLAGS[name].value for name in SweepConfig._fields})


def seeds(flag="seeds"):
  """List of int."""
  return sorted({int(s) for s in flags.FLAGS[flag].value})


@contextlib.contextmanager
def errors_without_traceback():
  """Ends the process with the message of an error, in which names of arguments become flags."""
  try:
    yield
  except (ValueError, OSError, FloatingPointError) as error:
    logging.error("%s", with_flags(str(error)))
    sys.exit(1)


def with_flags(message):
  """Writes `--` before the arguments of the library that are flags, as in "batch_size is 97" or "views=2"."""

  def prefixed(match):
    return f"--{match[0]}" if match[0] in flags.FLAGS else match[0]

  # A name without an underscore is an argument before "=" only; elsewhere it is a word.
  return re.sub(r"(?<![-\w./'\"=])(?:[a-z]+(?:_[a-z]+)+|workdir|[a-z]+(?==))(?![\w./])", prefixed, message)
