"""Measures time and memory of a step of laboratory B at full size, and estimates the memory that a GPU needs.

Each batch size is measured in a process of its own, since the peak memory of a process never falls. The difference of
the peaks of the largest and the smallest batch gives the memory per image, which includes temporary tensors.

  python -m experiments.benchmarks step_cost
  python -m experiments.benchmarks step_cost --teacher=resnet56 --student=resnet20 --batch_sizes=16,64 --method=response
"""

import re
import statistics
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import tf_keras as keras
from absl import flags

from experiments import _run, run_flags
from tfkd import Distiller, models, objectives
from tfkd.ops.timing import in_new_process, peak_bytes
from tfkd.reporting import markdown_table

flags.DEFINE_enum("method", "feature", ("response", "feature"), "Teacher outputs that the student learns from.")
flags.DEFINE_list("batch_sizes", ["8", "16", "32"], "Batch sizes to measure, separated by commas; at least two.")
flags.register_validator(
  "batch_sizes",
  lambda sizes: len(set(sizes)) > 1 and run_flags.every(int, lambda n: n > 0)(sizes),
  "expected two different whole numbers > 0, separated by commas",
)

PRESETS = {"full": {"teacher": "resnet50", "student": "resnet18"}}
_STEPS = 5
_GPU_BATCH = 128


def main(argv: Sequence[str]) -> None:
  """Measures all batch sizes and prints the table."""
  run_flags.start(argv, PRESETS)
  given = flags.FLAGS
  rows = []
  for batch_size in sorted({int(n) for n in given.batch_sizes}):
    rows.append(in_new_process(measure, given.teacher, given.student, given.method, batch_size))
  table = [
    [str(row["batch_size"]), f"{row['seconds']:.2f}", f"{1000 * row['seconds'] / row['batch_size']:.0f}",
     f"{row['peak_bytes'] / 2**20:,.0f}"] for row in rows
  ]  # fmt: skip
  small, large = rows[0], rows[-1]
  per_image = (large["peak_bytes"] - small["peak_bytes"]) / (large["batch_size"] - small["batch_size"])
  # The teacher's weights; the student's, their gradients and their momentum.
  fixed = 4 * (small["teacher_parameters"] + 3 * small["student_parameters"])
  print(  # noqa: T201  (the script's output)
    f"{given.teacher} teaches {given.student}, {given.method}, float32, 32x32 images\n\n"
    + markdown_table(["batch", "seconds per step", "ms per image", "peak MiB"], table)
    + f"\n{per_image / 2**20:.1f} MiB per image, {fixed / 2**20:.0f} MiB for any batch. A batch of "
    f"{_GPU_BATCH} needs about {(fixed + _GPU_BATCH * per_image) / 2**30:.1f} GiB in float32 and "
    f"{(fixed + _GPU_BATCH * per_image / 2) / 2**30:.1f} GiB with 16-bit features (--mixed_precision), in "
    "addition to the memory of the runtime."
  )


def measure(teacher: str, student: str, method: str, batch_size: int) -> dict[str, Any]:
  """Times training steps and reads the peak memory of this process.

  Args:
    teacher, student: names of networks.
    method: "response" or "feature".
    batch_size: number of images per step.

  Returns:
    dict: batch_size, seconds (median per step), peak_bytes (resident), teacher_parameters, student_parameters.
  """
  student_model = models.build(student)
  # Outputs of the stages: CIFAR networks have three, others four.
  stages = [layer.name for layer in student_model.layers if re.fullmatch(r"layer\d", layer.name)]
  objective = (
    objectives.SoftTargets(4.0, weight=0.7, form="kl")
    if method == "response"
    else objectives.Hint(stages, stages, weight=1 / len(stages), connector="conv1x1", alignment="average_pool")
  )
  distiller = Distiller(models.build(teacher), student_model, [objective], hard_loss_weight=0.5)
  distiller.compile(
    keras.optimizers.SGD(0.1, momentum=0.9), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
  )
  rng = np.random.default_rng(0)
  images = rng.uniform(size=(batch_size, 32, 32, 3)).astype(np.float32)
  labels = rng.integers(0, 10, batch_size)
  seconds = []
  for _ in range(_STEPS + 1):
    start = time.perf_counter()
    distiller.train_on_batch(images, labels)
    seconds.append(time.perf_counter() - start)
  return {
    "batch_size": batch_size,
    "seconds": statistics.median(seconds[1:]),  # The first step includes tracing.
    "peak_bytes": peak_bytes(),
    "teacher_parameters": distiller.teacher.model.count_params(),
    "student_parameters": distiller.student.count_params(),
  }


if __name__ == "__main__":
  _run.main(main)
