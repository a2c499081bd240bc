"""Does the input keep up with training? Images per second of each part, and of both together, on drawn photographs.

decode    JPEG files to the array on disk, once for a data set
input     batches from that array: random parts, turned, mirrored, tinted and normalised
training  medium's step, teacher and student, on a batch that is there already
both      the same step on the input's batches, as `fit` runs it

python -m experiments.benchmarks.throughput
python -m experiments.benchmarks.throughput --teacher=resnet18x0.25 --student=depthwise_cnn --image_size=128
"""

import os
import shutil
import statistics
import tempfile
import time

import numpy as np
import tf_keras as keras
from absl import flags
from PIL import Image

from experiments import _run, run_flags
from tfkd import Distiller, data, models
from tfkd.data import food11
from tfkd.objectives import SoftTargets
from tfkd.reporting import markdown_table

flags.DEFINE_integer("images", 256, "Photographs to draw.", lower_bound=16)
flags.DEFINE_integer("rounds", 5, "Each part has its turn so often; medians are shown.", lower_bound=1)

PRESETS = {
  "full": {"dataset": "food11", "teacher": "resnet18", "student": "plain_cnn", "image_size": 224, "batch_size": 32}
}
_PHOTOGRAPH = (384, 512)  # About what the homework's are.
_STEPS = 4


def main(argv):
  run_flags.start(argv, PRESETS)
  given = flags.FLAGS
  with run_flags.errors_without_traceback(), tempfile.TemporaryDirectory() as folder:
    _draw(os.path.join(folder, food11.FOLDERS["train"]), given.images)
    rates = _measure(folder)
  medians = {part: statistics.median(values) for part, values in rates.items()}
  table = [[part, f"{median:,.0f}", f"{1000 / median:.2f}"] for part, median in medians.items()]
  bottleneck = min(("input", "training"), key=medians.get)
  print(  # noqa: T201  (the answer)
    f"{given.teacher} teaches {given.student}, {given.image_size}x{given.image_size}, batches of {given.batch_size}, "
    f"{os.cpu_count()} CPU cores, median of {given.rounds} rounds\n\n"
    + markdown_table(["part", "images a second", "ms an image"], table)
    + f"\nThe bottleneck is {bottleneck}: the input alone makes {medians['input'] / medians['training']:.1f} times the "
    f"images that training takes, and both together run at {medians['both'] / medians[bottleneck]:.2f} of the slower's "
    "rate."
  )


def _draw(folder, count):
  """Photographs as JPEG compresses them: coarse structure, and finer one with less contrast."""
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
  """Images per second of each part, a list with one for each round."""
  given = flags.FLAGS
  info = data.info(given.dataset, image_size=given.image_size)
  student = models.build(given.student, len(info.classes), info.image_shape)
  teacher = models.build(given.teacher, len(info.classes), info.image_shape)
  distiller = Distiller(teacher, student, [SoftTargets(5.0, weight=0.5)], hard_loss_weight=0.5)
  distiller.compile(keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
  read = {"data_dir": folder, "image_size": given.image_size}
  kept = os.path.join(folder, ".tfkd")
  rates = {"decode": [], "input": [], "training": [], "both": []}
  for _ in range(given.rounds):
    shutil.rmtree(kept, ignore_errors=True)
    start = time.perf_counter()
    data.load_arrays(given.dataset, "train", **read)
    rates["decode"].append(given.images / (time.perf_counter() - start))
  batches = data.load(
    given.dataset, "train", batch_size=given.batch_size, shuffle_seed=0, augment=True, **read
  ).repeat()  # fmt: skip
  ready = next(iter(batches))
  distiller.train_on_batch(*ready)  # Traced before it is timed.
  parts = {
    "input": next,
    "training": lambda _: distiller.train_on_batch(*ready),
    "both": lambda iterator: distiller.train_on_batch(*next(iterator)),
  }
  for _ in range(given.rounds):
    for part, step in parts.items():
      # A new iterator each: what one has prepared ahead must not be another's.
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
