"""Steps of distillation, timed in turn in one process, beside those of Keras 3 and PyTorch, and what is promised.

  labels           Keras' own fit of the student
  teacher forward  the teacher alone
  online           soft targets, the teacher in every step; with 4 hints, features of four layers too
  cached           soft targets, the teacher's outputs read from disk
  Keras 3          keras.distillation.Distiller on the same networks, KLDivergence(); with 1 feature, one layer more
  PyTorch          a plain loop with soft targets, where torch is installed

The report gives medians over rounds of times and ratios, and the peak memory of each variant in a process of its own. A
promise that is not kept is named, and the exit code is 1.

  python -m experiments.benchmarks.steps
  python -m experiments.benchmarks.steps --parts=steps --pairs="resnet20 to resnet8"
"""

import os
import platform
import statistics
import sys

from absl import flags, logging
from tqdm import tqdm

from experiments import _run, run_flags
from experiments.benchmarks import costs
from experiments.benchmarks.report import write_report
from experiments.benchmarks.variants import CACHED, HINTS, LABELS, ONLINE, PAIRS, TEACHER, names, step
from tfkd.ops.timing import in_new_process, interleaved, median_ratio
from tfkd.sweeps import FLOAT

_PARTS = ("steps", "memory", "cache", "start", "sweep")
flags.DEFINE_multi_enum("parts", _PARTS, _PARTS, "What to measure; may be given several times.")
flags.DEFINE_multi_enum("pairs", list(PAIRS), list(PAIRS), "Teacher and student; may be given several times.")
flags.DEFINE_integer("rounds", 25, "How often each variant has its turn.", lower_bound=1)
flags.DEFINE_integer("calls", 3, "Steps of a turn.", lower_bound=1)

PRESETS = {"full": {"epochs": 2, "limit_train": 4_000}}


def main(argv):
  run_flags.start(argv, PRESETS)
  given = flags.FLAGS
  workdir = given.workdir or os.path.join("runs", "benchmark")
  parts, tables, promises = set(given.parts), {}, []
  for pair in given.pairs:
    if parts & {"steps", "memory"}:
      times = _time(pair) if "steps" in parts else {}
      mib = _memory(pair) if "memory" in parts else {}
      tables[pair] = [_row(key, times, mib) for key in names(pair)]
      promises += _step_promises(pair, times) if times else []
    if "cache" in parts:
      promises += _cache_promises(pair)
  if "start" in parts:
    promises += _start_promises()
  if "sweep" in parts:
    promises += _sweep_promises()
  title = f"Steps of {given.batch_size} images on {os.cpu_count()} cores ({platform.machine()})"
  print(write_report(workdir, title, tables, promises))  # noqa: T201  (the answer)
  broken = [what for what, _, _, is_kept in promises if not is_kept]
  if broken:
    logging.error("not kept: %s", "; ".join(broken))
    sys.exit(1)


def _time(pair):
  given = flags.FLAGS
  turns = {}
  for what, scheme in tqdm(names(pair), desc=f"{pair}: building", unit="variant", dynamic_ncols=True):
    turns[what, scheme] = step(pair, what, scheme, given.batch_size)
  return interleaved(turns, given.rounds, given.calls)


def _memory(pair):
  keys = tqdm(names(pair), desc=f"{pair}: memory", unit="variant", dynamic_ncols=True)
  size = flags.FLAGS.batch_size
  return {key: in_new_process(costs.steps_mib, pair, *key, size) for key in keys}


def _row(key, times, mib):
  what, scheme = key
  row = {"what": what, "scheme": "–" if what == TEACHER else scheme, "mib": mib.get(key)}
  if not times:
    return row | {"wall": float("nan"), "cpu": float("nan"), "ratio": float("nan")}
  floor = _sums(times[LABELS, scheme].wall, times[TEACHER, FLOAT].wall)
  own = times[key]
  return row | {
    "wall": statistics.median(own.wall), "cpu": statistics.median(own.cpu), "ratio": median_ratio(own.wall, floor),
  }  # fmt: skip


def _step_promises(pair, times):
  promises = []
  schemes = [scheme for what, scheme in times if what == CACHED]
  for scheme in schemes:
    labels, teacher = times[LABELS, scheme].wall, times[TEACHER, FLOAT].wall
    floor = _sums(labels, teacher)
    for what, limit in ((ONLINE, 1.05), (HINTS, 1.20)):
      ratio = median_ratio(times[what, scheme].wall, floor)
      promises.append(_at_most(f"{pair}, {scheme}: {what} / (labels + teacher forward)", ratio, limit))
    ratio = median_ratio(times[CACHED, scheme].wall, labels)
    promises.append(_at_most(f"{pair}, {scheme}: cached / labels", ratio, 1.05))
    if scheme != FLOAT:
      ratio = median_ratio(labels, times[LABELS, FLOAT].wall)
      limit = 1.20 if scheme == "w8a8" else 1.25
      promises.append(_at_most(f"{pair}: labels, {scheme} / labels, float", ratio, limit))
  return promises


def _cache_promises(pair):
  size = flags.FLAGS.batch_size
  rate = in_new_process(costs.cache_rate, pair, size)
  small, large = (in_new_process(costs.cache_mib, pair, size, images) for images in (4_096, 40_960))
  return [
    (f"{pair}: rate of writing a cache / teacher forward", rate, ">= 0.90", rate >= 0.90),
    _at_most(f"{pair}: peak memory of caching ten times the images", large / small, 1.10),
  ]


def _start_promises():
  first = in_new_process(costs.first_step_seconds, next(iter(PAIRS)), ONLINE, "w8a8", flags.FLAGS.batch_size)
  return [
    _at_most("seconds that `import tfkd` adds to TensorFlow and tf_keras", costs.import_seconds(), 0.3),
    _at_most("seconds of the first step of a w8a8 student", first, 15.0),
  ]


def _sweep_promises():
  seconds = in_new_process(costs.sweep_seconds, flags.FLAGS.epochs, flags.FLAGS.limit_train)
  return [_at_most("five temperatures / five students on labels", seconds["temperatures"] / seconds["labels"], 1.05)]


def _at_most(what, found, limit):
  return what, found, f"<= {limit:.2f}", found <= limit


def _sums(one, other):
  return [a + b for a, b in zip(one, other, strict=True)]


if __name__ == "__main__":
  _run.main(main)
