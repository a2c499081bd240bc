"""Measures whether the input keeps up with training: images per second of each part, on generated photographs.

decode    JPEG files to the array on disk, once per data set
input     batches from that array: random crops, rotated, mirrored, recolored and normalized
training  a step of the medium baseline, teacher and student, on a batch in memory
both      the same step on batches of the input, as in `fit`

python -m experiments.benchmarks throughput
python -m experiments.benchmarks throughput --teacher=resnet18x0.25 --student=depthwise_cnn --image_size=128
"""

import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence

import numpy as np
import tf_keras as keras
from absl import flags
from PIL import Image

from experiments import _run, run_flags
from tfkd import Distiller, data, models
from tfkd.data import food11
from tfkd.objectives import SoftTargets
from tfkd.reporting import markdown_table

flags.DEFINE_integer("images", 256, "Number of photographs to generate.", lower_bound=16)
flags.DEFINE_integer("rounds", 5, "Number of rounds; the table shows medians over them.", lower_bound=1)

PRESETS = {
  "full": {"dataset": "food11", "teacher": "resnet18", "student": "plain_cnn", "image_size": 224, "batch_size": 32}
}
_PHOTOGRAPH = (384, 512)  # Height and width, similar to the homework's.
_STEPS = 4


def main(argv: Sequence[str]) -> None:
  """Measures all parts and prints the table."""
  run_flags.start(argv, PRESETS)
  given = flags.FLAGS
  with run_flags.errors_without_traceback(), tempfile.TemporaryDirectory() as folder:
    _draw(os.path.join(folder, food11.FOLDERS["train"]), given.images)
    rates = _measure(folder)
  medians = {part: statistics.median(values) for part, values in rates.items()}
  table = [[part, f"{median:,.0f}", f"{1000 / median:.2f}"] for part, median in medians.items()]
  bottleneck = min(("input", "training"), key=medians.get)
  print(  # noqa: T201  (the script's output)
    f"{given.teacher} teaches {given.student}, {given.image_size}x{given.image_size}, batches of {given.batch_size}, "
    f"{os.cpu_count()} CPU cores, median of {given.rounds} rounds\n\n"
    + markdown_table(["part", "images per second", "ms per image"], table)
    + f"\nThe bottleneck is {bottleneck}: the input alone has {medians['input'] / medians['training']:.1f} times "
    + f"the rate of training alone, and both together {medians['both'] / medians[bottleneck]:.2f} of the slower rate."
  )


def _draw(folder, count):
  """Writes images that compress like photographs: finer structure has less contrast."""
  os.makedirs(folder)
  rng = np.random.default_rng(0)
  height, width = _PHOTOGRAPH
  for number in range(count):
    pixels = np.zeros((height, width, 3))
    for size in (4, 16, 64, 256):
      grain = Image.fromarray(rng.integers(0, 256, (size, size, 3), np.uint8)).resize((width, height), Image.BICUBIC)
      pixels += np.asarray(grain, np.float64) / size**0.5
    pixels *= 255 / pixels.max()
    path = os.path.join(folder, f"{number % len(food11.CLASSES)}_{number}.jpg")
    Image.fromarray(pixels.astype(np.uint8)).save(path, quality=90)


def _measure(folder):
  """Returns the images per second of each part, one number per round."""
  given = flags.FLAGS
  info = data.info(given.dataset, image_size=given.image_size)
  student = models.build(given.student, len(info.classes), info.image_shape)
  teacher = models.build(given.teacher, len(info.classes), info.image_shape)
  distiller = Distiller(teacher, student, [SoftTargets(5.0, weight=0.5)], hard_loss_weight=0.5)
  distiller.compile(keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
  read = {"data_dir": folder, "image_size": given.image_size}
  decoded = os.path.join(folder, ".tfkd")
  rates = {"decode": [], "input": [], "training": [], "both": []}
  for _ in range(given.rounds):
    shutil.rmtree(decoded, ignore_errors=True)
    start = time.perf_counter()
    data.load_arrays(given.dataset, "train", **read)
    rates["decode"].append(given.images / (time.perf_counter() - start))
  batches = data.load(
    given.dataset, "train", batch_size=given.batch_size, shuffle_seed=0, augment=True, **read
  ).repeat()  # fmt: skip
  ready = next(iter(batches))
  distiller.train_on_batch(*ready)  # Traces the step before it is timed.
  parts = {
    "input": next,
    "training": lambda _: distiller.train_on_batch(*ready),
    "both": lambda iterator: distiller.train_on_batch(*next(iterator)),
  }
  for _ in range(given.rounds):
    for part, step in parts.items():
      # A new iterator for each part, since an iterator prepares batches ahead.
      iterator = None if part == "training" else iter(batches)
      if iterator:
        next(iterator)
      start = time.perf_counter()
      for _ in range(_STEPS):
        step(iterator)
      rates[part].append(_STEPS * given.batch_size / (time.perf_counter() - start))
  return rates


if __name__ == "__main__":
  _run.main(main)
