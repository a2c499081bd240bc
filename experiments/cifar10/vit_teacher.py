"""A vision transformer teaches a ResNet: head-only fine-tuning of a pretrained teacher, then soft targets.

Stage 1 gives the teacher a new last layer and trains that layer alone on the unchanged pretrained features, which are
computed once. Stage 2 trains a student from scratch on labels, one that starts from pretrained weights (with
--student_checkpoint), and both again with the teacher's soft targets: alpha * T^2 * KL + (1 - alpha) * cross-entropy.
The published report wrote `T * T * 2.0 + alpha` for the weight of the soft loss; this script uses the formula. An
interrupted run continues where it stopped.

  python -m experiments.cifar10.vit_teacher --teacher_checkpoint=vit_base_patch16_224.safetensors \
    --student_checkpoint=resnet34.safetensors
  python -m experiments.cifar10.vit_teacher --preset=cpu --data_dir=cifar10_train_jpeg.tar.xz
"""

from absl import flags

from experiments import _run, response, run_flags
from experiments.cifar10.vit_report import WORDS, write_report
from tfkd.sweeps import FLOAT, StudentSpec, Sweep

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
  # Half an hour on two cores, without pretrained weights: a residual teacher in place of the transformer. Its outputs
  # for eight augmentations of each image are cached, as those of a large teacher would have to be.
  "cpu": _COMMON
  | {
    "teacher": "resnet18x0.25",
    "student": "resnet8",
    "limit_train": 20_000,
    "teacher_epochs": 12,
    "epochs": 10,
    "learning_rate": 0.1,
    "teacher_learning_rate": 0.1,
    "augment": True,
    "views": 8,
    "seeds": [0, 1, 2],
  },
}


def student(method: str, seed: int) -> StudentSpec:
  """Returns the student of a row of the table, a key of `WORDS`."""
  given = flags.FLAGS
  start = "checkpoint" if "pretrained" in method else "scratch"
  if method.startswith("labels"):
    return StudentSpec("vit_teacher", method, given.scheme, seed, start=start)
  return response.response("vit_teacher", method, seed, given.temperature, given.alpha, start=start)


def _methods() -> list[str]:
  return [method for method in WORDS if flags.FLAGS.student_checkpoint or "pretrained" not in method]


def _write_report(sweep: Sweep, _: None) -> str:
  rows = {"teacher": sweep.results.find(role="teacher")}
  rows |= {method: sweep.rows(student(method, 0)) for method in _methods()}
  return write_report(sweep.path(), rows)


EXPERIMENT = _run.Experiment(
  "vit_teacher",
  PRESETS,
  lambda sweep: [student(method, seed) for seed in run_flags.seeds() for method in _methods()],
  _write_report,
)

if __name__ == "__main__":
  _run.main(EXPERIMENT)
