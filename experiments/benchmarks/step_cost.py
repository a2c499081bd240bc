"""What a step of laboratory B costs at full size: time, and memory, which says what a GPU needs.

Each batch size runs in a process of its own, so that its peak memory is its own. The rise of the peak from the smallest
to the largest batch is the memory of an image: what the backward pass keeps, and what comes and goes in between.

  python -m experiments.benchmarks.step_cost
  python -m experiments.benchmarks.step_cost --teacher=resnet56 --student=resnet20 --batch_sizes=16,64 --method=response
"""

import re
import statistics
import time

import numpy as np
import tf_keras as keras
from absl import flags

from experiments import _run, run_flags
from tfkd import Distiller, models, objectives
from tfkd.ops.timing import in_new_process, peak_bytes
from tfkd.reporting import markdown_table

flags.DEFINE_enum("method", "feature", ("response", "feature"), "What the student learns from.")
flags.DEFINE_list("batch_sizes", ["8", "16", "32"], "Batch sizes to measure, separated by commas; two at least.")
flags.register_validator(
  "batch_sizes",
  lambda sizes: len(set(sizes)) > 1 and run_flags.every(int, lambda n: n > 0)(sizes),
  "expected two different whole numbers > 0, separated by commas",
)

PRESETS = {"full": {"teacher": "resnet50", "student": "resnet18"}}
_STEPS = 5
_GPU_BATCH = 128


def main(argv):
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
  print(  # noqa: T201  (the answer)
    f"{given.teacher} teaches {given.student}, {given.method}, float32, 32x32 images\n\n"
    + markdown_table(["batch", "seconds a step", "ms an image", "peak MiB"], table)
    + f"\n{per_image / 2**20:.1f} MiB an image, {fixed / 2**20:.0f} MiB whatever the batch. Batch {_GPU_BATCH} needs "
    f"about {(fixed + _GPU_BATCH * per_image) / 2**30:.1f} GiB beside the runtime's own in float32, and "
    f"{(fixed + _GPU_BATCH * per_image / 2) / 2**30:.1f} GiB with 16-bit features (--mixed_precision)."
  )


def measure(teacher, student, method, batch_size):
  """Times training steps and reads this process' peak memory.

  Args:
    teacher, student: names of networks.
    method: "response" or "feature".
    batch_size: images of a step.

  Returns:
    dict: batch_size, seconds (median of a step), peak_bytes (resident), teacher_parameters, student_parameters.
  """
  student = models.build(student)
  # The stages' outputs: three in the networks of the CIFAR tables, four in the others.
  stages = [layer.name for layer in student.layers if re.fullmatch(r"layer\d", layer.name)]
  objective = (
    objectives.SoftTargets(4.0, weight=0.7, form="kl")
    if method == "response"
    else objectives.Hint(stages, stages, weight=1 / len(stages), connector="conv1x1", alignment="average_pool")
  )
  distiller = Distiller(models.build(teacher), student, [objective], hard_loss_weight=0.5)
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
    "seconds": statistics.median(seconds[1:]),  # The first one traces.
    "peak_bytes": peak_bytes(),
    "teacher_parameters": distiller.teacher.model.count_params(),
    "student_parameters": distiller.student.count_params(),
  }


if __name__ == "__main__":
  _run.main(main)
