"""What a step's time does not show: memory, the first step, the cache's writing, a whole sweep."""

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


def steps_mib(pair, what, scheme, batch_size):
  """Peak memory of a process that makes a few steps of a variant."""
  run = step(pair, what, scheme, batch_size)
  for _ in range(_STEPS):
    run()
  return peak_bytes() / 2**20


def first_step_seconds(pair, what, scheme, batch_size):
  """Seconds of a variant's first step: its tracing."""
  run = step(pair, what, scheme, batch_size)
  start = time.perf_counter()
  run()
  return time.perf_counter() - start


def import_seconds(repeats=5):
  """Median seconds that `import tfkd` adds to TensorFlow's and tf_keras' own imports."""
  code = (
    "import tensorflow, tf_keras, time; start = time.perf_counter(); import tfkd; print(time.perf_counter() - start)"
  )
  runs = [
    subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(repeats)
  ]
  return statistics.median(float(run.stdout) for run in runs)


def cache_rate(pair, batch_size, rounds=7, images=8_192):
  """Median ratio of the rates of writing a cache and of the teacher's plain forward, each with its tracing, in turn."""
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


def cache_mib(pair, batch_size, images):
  """Peak memory of a process that writes a cache of so many drawn images, which it does not hold."""
  cache(models.build(PAIRS[pair][0]), _drawn(images, batch_size), os.path.join(tempfile.mkdtemp(), "cache"))
  return peak_bytes() / 2**20


def sweep_seconds(epochs, limit_train):
  """Seconds of five students on labels, and of five students of as many temperatures, trained in turn.

  The students are float networks of the SVHN homework on house_numbers, each group one sweep, whose teacher is there.
  """
  folder = tempfile.mkdtemp()
  house_numbers.write(os.path.join(folder, "data"))
  training = SweepConfig(
    "house_numbers", os.path.join(folder, "data"), limit_train=limit_train, epochs=epochs, teacher_epochs=1
  )
  groups = {
    "labels": [StudentSpec("q1", "labels", FLOAT, seed) for seed in range(5)],
    "temperatures": [
      StudentSpec("q3", "soft", FLOAT, 0, (SoftTargets(t),), 1.0, t) for t in (1.0, 5.0, 10.0, 20.0, 50.0)
    ],
  }
  sweeps = {name: Sweep(os.path.join(folder, name), training) for name in groups}
  for sweep in sweeps.values():
    sweep.train_teacher()
  seconds = dict.fromkeys(groups, 0.0)
  for number in range(5):
    for name in list(groups)[:: (-1) ** number]:  # In turn, and in turn first.
      start = time.perf_counter()
      sweeps[name].run([groups[name][number]])
      seconds[name] += time.perf_counter() - start
  return seconds


def _drawn(images, batch_size):
  """Batches of noise that repeats, so that any number of images takes the same memory."""
  noise = np.random.default_rng(0).integers(0, 256, (1024, 32, 32, 3)).astype(np.uint8)
  return data.batches(noise, np.zeros(1024, np.int32), batch_size, scale_pixels=True).repeat(images // 1024)
