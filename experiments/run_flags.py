"""Flags that all experiments share. A script defines only its own flags in addition."""

import contextlib
import re
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf
from absl import app, flags, logging

from tfkd import data, models
from tfkd.data.food11 import ON_BAD_IMAGE
from tfkd.quantization import parse_scheme
from tfkd.sweeps import FLOAT, SweepConfig
from tfkd.training import OPTIMIZERS, SCHEDULES, STRATEGIES

flags.DEFINE_enum(
  "preset", None, ("quick", "cpu", "full"), "Sizes of the run. Flags that are given override its values. [script]"
)
flags.DEFINE_enum(
  "dataset", None, data.DATASETS, "Data set. house_numbers is generated and needs no download. [script]"
)
flags.DEFINE_string(
  "data_dir",
  None,
  "Directory of the data; for cifar10 and recordings also an archive. By default the data are downloaded or generated.",
)
flags.DEFINE_integer("limit_train", None, "Number of training images to use; by default all. [preset]", lower_bound=1)
flags.DEFINE_integer(
  "image_size", None, "food11: height and width of the networks' images in pixels; by default 224.", lower_bound=8
)
flags.DEFINE_enum(
  "on_bad_image", None, ON_BAD_IMAGE, "food11: treatment of files that cannot be read; by default an error."
)
flags.DEFINE_string("workdir", None, "Work directory for all results; by default runs/<script>/<dataset>.")
flags.DEFINE_boolean("overwrite", False, "Delete earlier results in the work directory first.")
flags.DEFINE_string(
  "teacher",
  None,
  "Teacher network, such as resnet20, resnet50x0.125, wrn-16-2, vit_base16@224, efficientnet_lite0, mobilenet_v2x0.35, "
  "keras-EfficientNetB0 or svhn_cnn. [preset]",
)
flags.DEFINE_string(
  "teacher_checkpoint",
  None,
  "Weights of a resnet18, resnet34, resnet50, vit or efficientnet_lite that replace the teacher's training: a .pth "
  "state dict or a .safetensors file with the names of torchvision, timm, Hugging Face or efficientnet-lite-pytorch.",
)
flags.DEFINE_boolean("teacher_head_only", False, "Replace the checkpoint's last layer and train only the new layer.")
flags.DEFINE_string("student", None, "Student network, with the same names as --teacher. [preset]")
flags.DEFINE_string(
  "student_checkpoint", None, "Weights of pretrained students, whose last layer is replaced by a new one."
)
flags.DEFINE_string(
  "scheme", None, "Quantization scheme of the students: w<bits of weights>a<bits of features>, or float. [script]"
)
flags.DEFINE_list("seeds", None, "Seeds, separated by commas; one student is trained per seed. [preset]")
flags.DEFINE_integer("epochs", None, "Number of epochs of a student. [preset]", lower_bound=1)
flags.DEFINE_integer("teacher_epochs", None, "Number of epochs of the teacher. [preset]", lower_bound=1)
flags.DEFINE_integer("batch_size", 128, "Number of examples per step over all replicas.", lower_bound=1)
flags.DEFINE_enum("optimizer", "adam", OPTIMIZERS, "Optimizer; sgd has momentum 0.9.")
flags.DEFINE_float("learning_rate", 3e-3, "Peak learning rate of a student.", lower_bound=0.0)
flags.DEFINE_float("teacher_learning_rate", 2e-3, "Peak learning rate of the teacher.", lower_bound=0.0)
flags.DEFINE_enum(
  "schedule",
  "cosine",
  SCHEDULES,
  "Decay of the learning rate: cosine to zero, or steps to a tenth after 62.5, 75 and 87.5 % of the training.",
)
flags.DEFINE_float("warm_up", 0.05, "Fraction of the steps in which the learning rate rises linearly.", 0.0, 0.99)
flags.DEFINE_float(
  "weight_decay",
  0.0,
  "Decoupled weight decay, of kernels only. 5e-3 corresponds to PyTorch's 5e-4 with momentum 0.9.",
  0.0,
)
flags.DEFINE_boolean(
  "augment",
  False,
  "Augment the training images: random crops after padding by 4 pixels, and mirroring where it keeps the class; "
  "food11: random crops, rotations, mirroring and color changes. The teacher then runs in every step on the student's "
  "images.",
)
flags.DEFINE_integer(
  "views",
  None,
  "Number of fixed augmentations per image with --augment, whose teacher outputs are computed once and cached. By "
  "default every epoch draws new augmentations.",
  1,
)
flags.DEFINE_float(
  "label_smoothing",
  0.0,
  "Share of a label that is spread over all classes, for teacher and students. A teacher trained with it may distill "
  "worse (arXiv:1906.02629).",
  0.0,
  0.99,
)
flags.DEFINE_float("mixup", 0.0, "Alpha of mixup; 0 disables it. The teacher's inputs are the mixed images.", 0.0)
flags.DEFINE_float(
  "ema",
  0.0,
  "Momentum of a moving average of the weights, which replaces them at the end; 0 disables it.",
  0.0,
  0.9999,
)
flags.DEFINE_enum(
  "mixed_precision", "none", ("none", "float16", "bfloat16"), "16-bit arithmetic of the teacher and of float students."
)
flags.DEFINE_boolean("scale_learning_rate", False, "Multiply the learning rates by batch_size / 128.")
flags.DEFINE_enum(
  "strategy",
  "auto",
  STRATEGIES,
  "Distribution strategy. auto uses all GPUs, or the CPU if there is none; multi_worker trains synchronously on all "
  "machines of TF_CONFIG or of a SLURM job step; parameter_server trains asynchronously on those of TF_CONFIG. See "
  "tfkd.training.launch.",
)
flags.DEFINE_float("checkpoint_minutes", 5.0, "Minutes between checkpoints of a training.", 0.0)
flags.DEFINE_integer("checkpoint_steps", None, "Number of steps between further checkpoints; by default none.", 1)
flags.DEFINE_boolean(
  "deterministic", False, "Use deterministic operations, which give identical bits in every run; slower on GPUs."
)


def every(convert: Callable[[str], Any], check: Callable[[Any], bool]) -> Callable[[list[str] | None], bool]:
  """Returns a validator of a list flag: it is None or not empty, and each value can be converted and passes a check."""

  def run(values):
    try:
      return values is None or (bool(values) and all(check(convert(value)) for value in values))
    except ValueError:
      return False

  return run


def parses(parse: Callable[[str], Any]) -> Callable[[str | None], bool]:
  """Returns a validator of a string flag: it is None, or `parse` accepts it."""

  def run(value):
    try:
      if value is not None:
        parse(value)
    except ValueError as error:
      raise flags.ValidationError(str(error)) from error
    return True

  return run


def register_seeds(flag: str) -> None:
  """Registers the validator of a list flag of seeds, which `seeds` reads."""
  flags.register_validator(flag, every(int, lambda s: s >= 0), "expected whole numbers >= 0, separated by commas")


register_seeds("seeds")
flags.register_validator("scheme", parses(lambda name: name == FLOAT or parse_scheme(name)))
flags.register_validator("teacher", parses(models.parse))
flags.register_validator("student", parses(models.parse))


def start(argv: Sequence[str], presets: Mapping[str, Mapping[str, Any]]) -> None:
  """Refuses stray arguments, sets flags from the preset, and enables logging; every script calls it first.

  Args:
    argv: command line as absl passes it.
    presets: values of flags by name of the preset; the first preset is the script's default. Flags of the command line
      override them.

  Raises:
    absl.app.UsageError: there are stray arguments, or the script does not have the preset.
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
    # This optimization would change the order of sums of several terms at every trace.
    tf.config.optimizer.set_experimental_options({"arithmetic_optimization": False})
  # Finished work is on disk already. `SystemExit` lets a fit in progress write a checkpoint.
  signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))


def training() -> SweepConfig:
  """Returns the `SweepConfig` of the flags."""
  return SweepConfig(**{name: flags.FLAGS[name].value for name in SweepConfig._fields})


def seeds(flag: str = "seeds") -> list[int]:
  """Returns the sorted seeds of a list flag."""
  return sorted({int(s) for s in flags.FLAGS[flag].value})


@contextlib.contextmanager
def errors_without_traceback() -> Iterator[None]:
  """Ends the process with status 1 and the message of an error, in which names of arguments become flags."""
  try:
    yield
  except (ValueError, OSError, FloatingPointError) as error:
    logging.error("%s", with_flags(str(error)))
    sys.exit(1)


def with_flags(message: str) -> str:
  """Writes `--` before the arguments of the library that are flags, as in "batch_size is 97" or "views=2"."""

  def prefixed(match):
    return f"--{match[0]}" if match[0] in flags.FLAGS else match[0]

  # A name without an underscore is an argument only before "="; elsewhere it is an English word.
  return re.sub(r"(?<![-\w./'\"=])(?:[a-z]+(?:_[a-z]+)+|workdir|[a-z]+(?==))(?![\w./])", prefixed, message)
