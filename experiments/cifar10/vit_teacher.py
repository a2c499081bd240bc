"""A vision transformer teaches a ResNet: head-only fine-tuning of a pretrained teacher, then its response.

Stage 1 gives the teacher a new last layer and trains that alone, so that the pretrained features are passed on
undamaged; they are computed once. Stage 2 trains a student from scratch on labels, one that begins with pretrained
weights (with --student_checkpoint), and the same with the teacher's response beside the labels: alpha * T^2 * KL +
(1 - alpha) * cross-entropy. The published report wrote `T * T * 2.0 + alpha` for the weight of the soft loss; ours is
the formula. Started again after an interruption, it goes on with what is missing.

  python -m experiments.cifar10.vit_teacher --teacher_checkpoint=vit_base_patch16_224.safetensors \
    --student_checkpoint=resnet34.safetensors
  python -m experiments.cifar10.vit_teacher --preset=cpu --data_dir=cifar10_train_jpeg.tar.xz
"""

import os

from absl import app, flags

from experiments import response, run_flags
from tfkd import reporting
from tfkd.reporting import compare, format_mean_std, markdown_table, training_curves
from tfkd.sweeps import FLOAT, StudentSpec, Sweep

for module in (run_flags, response):
  flags.adopt_module_key_flags(module)  # So that --help lists them.

_COMMON = {
  "dataset": "cifar10", "scheme": FLOAT, "optimizer": "sgd", "weight_decay": 5e-3, "temperature": 4.0, "alpha": 0.7,
}  # fmt: skip
PRESETS = {
  # The laboratory's size, for a GPU, without augmentation, as the report.
  "full": _COMMON | {
    "teacher": "vit_base16@224", "teacher_head_only": True, "student": "resnet34@224", "teacher_epochs": 10,
    "teacher_learning_rate": 0.01, "epochs": 30, "learning_rate": 0.01, "batch_size": 64, "seeds": [0, 1, 2],
    "mixed_precision": "bfloat16",
  },
  # Half an hour on two cores, without weights from elsewhere: a residual teacher in the transformer's place, whose
  # answers to eight views of each image are computed once, as those of a large teacher had to be.
  "cpu": _COMMON | {
    "teacher": "resnet18x0.25", "student": "resnet8", "limit_train": 20_000, "teacher_epochs": 12, "epochs": 10,
    "learning_rate": 0.1, "teacher_learning_rate": 0.1, "augment": True, "views": 8, "seeds": [0, 1, 2],
  },
}  # fmt: skip
CURVES = "training_curves.png"
_WORDS = {
  "labels": "student from scratch", "response": "student from scratch, distilled",
  "labels, pretrained": "pretrained student", "response, pretrained": "pretrained student, distilled",
}  # fmt: skip


def main(argv):
  run_flags.start(argv, PRESETS)
  given = flags.FLAGS
  workdir = given.workdir or os.path.join("runs", "vit_teacher", given.dataset)
  methods = [method for method in _WORDS if given.student_checkpoint or "pretrained" not in method]
  with run_flags.errors_without_traceback():
    sweep = Sweep(workdir, run_flags.training(), overwrite=given.overwrite)
    sweep.run([student(method, seed) for seed in run_flags.seeds() for method in methods])
  if not sweep.writes:
    return
  rows = {"teacher": sweep.results.find(role="teacher")}
  rows |= {method: sweep.rows(student(method, 0)) for method in methods}
  print(write_report(workdir, rows))  # noqa: T201  (the answer)


def student(method, seed):
  """The student of a row of the table."""
  given = flags.FLAGS
  start = "checkpoint" if "pretrained" in method else "scratch"
  if method.startswith("labels"):
    return StudentSpec("vit_teacher", method, given.scheme, seed, start=start)
  return response.response("vit_teacher", method, seed, given.temperature, given.alpha, start=start)


def write_report(workdir, rows):
  """Writes `report.md` and the picture into the workdir; returns the text with the paths of both."""
  (teacher,) = rows["teacher"]
  names = teacher["config"]
  seeds = sorted({row["seed"] for row in rows["labels"]})
  how = "its last layer alone" if names["teacher_head_only"] else "all of it"
  title = f"{names['teacher']} teaches {names['student']} on {teacher['dataset']}"
  text = (
    f"# {title}\n\n"
    f"Measured on all {teacher['test_images']:,} test images after {names['teacher_epochs']} epochs of the "
    f"teacher ({how}) and {names['epochs']} of each student, on {teacher['train_images']:,} training images. Mean ± "
    f"standard deviation over seeds ({', '.join(map(str, seeds))}); one teacher.\n\n"
  )
  table = [
    [
      {"teacher": "teacher", **_WORDS}[method],
      f"{found[0]['trainable_parameters']:,}",
      format_mean_std([row["loss"] for row in found], digits=3),
      format_mean_std([row["accuracy"] for row in found], 100),
      format_mean_std([row["agreement"] for row in found], 100),
    ]
    for method, found in rows.items()
  ]
  text += markdown_table(["model", "parameters", "test loss", "test accuracy, %", "agreement with teacher"], table)
  accuracies = {method: [row["accuracy"] for row in found] for method, found in rows.items()}
  findings = [
    compare(
      f"the {_WORDS[f'response{kind}']}", accuracies[f"response{kind}"], "the one without", accuracies[f"labels{kind}"]
    )
    for kind in ("", ", pretrained")
    if f"labels{kind}" in rows
  ]
  text += f"\n{' '.join(findings)}\n\n![Training curves]({CURVES})\n"
  histories = {_WORDS[m]: [row["history"] for row in found] for m, found in rows.items() if m in _WORDS}
  training_curves(os.path.join(workdir, CURVES), histories, title)
  return reporting.write_report(workdir, text, [CURVES])


if __name__ == "__main__":
  app.run(main)
