"""Costs other than the time of a step: memory, the first step, writing a cache, a whole sweep."""

import os
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

from experiments.benchmarks.variants import PAIRS, step
from tfkd import data, models
from tfkd.data import house_numbers
from tfkd.objectives import SoftTargets
from tfkd.ops.timing import interleaved, median_ratio, peak_bytes
from tfkd.sweeps import FLOAT, StudentSpec, Sweep, SweepConfig
from tfkd.teachers import Frozen, cache

_STEPS = 5
_TEMPERATURES = (1.0, 5.0, 10.0, 20.0, 50.0)


def steps_mib(pair: str, kind: str, scheme: str, batch_size: int) -> float:
  """Makes a few steps of a variant and returns the peak memory of this process in MiB."""
  run = step(pair, kind, scheme, batch_size)
  for _ in range(_STEPS):
    run()
  return peak_bytes() / 2**20


def first_step_seconds(pair: str, kind: str, scheme: str, batch_size: int) -> float:
  """Returns the seconds of the first step of a variant, which includes tracing."""
  run = step(pair, kind, scheme, batch_size)
  start = time.perf_counter()
  run()
  return time.perf_counter() - start


def import_seconds(repeats: int = 5) -> float:
  """Returns the median seconds that `import tfkd` adds to TensorFlow's and tf_keras' imports."""
  code = (
    "import tensorflow, tf_keras, time; start = time.perf_counter(); import tfkd; print(time.perf_counter() - start)"
  )
  runs = [
    subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(repeats)
  ]
  return statistics.median(float(run.stdout) for run in runs)


def cache_rate(pair: str, batch_size: int, rounds: int = 7, images: int = 8_192) -> float:
  """Returns the rate of writing a cache divided by that of the teacher's forward pass; both include tracing."""
  import tensorflow as tf

  teacher = models.build(PAIRS[pair][0])
  dataset = _drawn(images, batch_size)
  frozen = Frozen(teacher)
  folder = tempfile.mkdtemp()
  paths = (os.path.join(folder, str(number)) for number in range(rounds + 1))

  def plain():
    forward = tf.function(frozen)
    for batch, _ in dataset:
      forward(batch)

  times = interleaved({"plain": plain, "cache": lambda: cache(frozen, dataset, next(paths))}, rounds, 1)
  return median_ratio(times["plain"].wall, times["cache"].wall)


def cache_mib(pair: str, batch_size: int, images: int) -> float:
  """Writes a cache of images that are not held in memory, and returns the peak memory of this process in MiB."""
  cache(models.build(PAIRS[pair][0]), _drawn(images, batch_size), os.path.join(tempfile.mkdtemp(), "cache"))
  return peak_bytes() / 2**20


def sweep_seconds(epochs: int, limit_train: int) -> dict[str, list[float]]:
  """Times five students on labels and five students of different temperatures, trained in turns, one by one.

  The students are float networks of the SVHN homework on house_numbers. Each group is a sweep of its own, whose teacher
  has been trained and whose teacher outputs have been stored before.

  Args:
    epochs: epochs of each student.
    limit_train: number of training images.

  Returns:
    "labels" and "temperatures" to the seconds of each student. The first student of a group includes tracing.
  """
  with tempfile.TemporaryDirectory() as directory:
    house_numbers.write(os.path.join(directory, "data"))
    config = SweepConfig(
      "house_numbers", os.path.join(directory, "data"), limit_train=limit_train, epochs=epochs, teacher_epochs=1
    )
    groups = {
      "labels": [StudentSpec("q1", "labels", FLOAT, seed) for seed in range(len(_TEMPERATURES))],
      "temperatures": [StudentSpec("q3", "soft", FLOAT, 0, (SoftTargets(t),), 1.0, t) for t in _TEMPERATURES],
    }
    sweeps = {name: Sweep(os.path.join(directory, name), config) for name in groups}
    for sweep in sweeps.values():
      sweep.train_teacher()
    seconds: dict[str, list[float]] = {name: [] for name in groups}
    for number in range(len(_TEMPERATURES)):
      for name in list(groups)[:: (-1) ** number]:  # The order alternates, so that no group is always the first.
        start = time.perf_counter()
        sweeps[name].run([groups[name][number]])
        seconds[name].append(time.perf_counter() - start)
    return seconds


def _drawn(images, batch_size):
  """Returns batches of repeated noise, which takes the same memory for any number of images."""
  noise = np.random.default_rng(0).integers(0, 256, (1024, 32, 32, 3)).astype(np.uint8)
  return data.batches(noise, np.zeros(1024, np.int32), batch_size, scale_pixels=True).repeat(images // 1024)
