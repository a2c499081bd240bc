"""Measures steps, memory, caching, start, a sweep, and the whole way to a file, and checks limits.

  labels           Keras' own fit of the student
  teacher forward  the teacher alone
  online           soft targets, with the teacher run in every step; "4 hints" adds features of four layers
  cached           soft targets, with the teacher's outputs read from disk
  Keras 3          keras.distillation.Distiller with KLDivergence(); "1 feature" adds features of one layer
  PyTorch          a plain training loop with soft targets, if torch is installed

The part whole_way measures the seconds from a trained teacher to an int8 file, and the accuracy of that file. The
report has medians over rounds. If a limit is exceeded, the exit status is 1.

  python -m experiments.benchmarks --preset=quick
  python -m experiments.benchmarks --parts=steps --pairs="resnet20 to resnet8"
  python -m experiments.benchmarks --parts=whole_way --way_epochs=4 --way_rounds=5
"""

import os
import platform
import sys
from collections.abc import Sequence

from absl import flags, logging
from tqdm import tqdm

from experiments import run_flags
from experiments.benchmarks import costs, limits, whole_way
from experiments.benchmarks.limits import Limit
from experiments.benchmarks.report import write_report
from experiments.benchmarks.variants import ONLINE, PAIRS, names, step
from tfkd.ops.timing import Times, in_new_process, interleaved

_PARTS = ("steps", "memory", "cache", "start", "sweep", "whole_way")
flags.DEFINE_multi_enum("parts", None, _PARTS, "Part to measure; may be repeated. [preset]")
flags.DEFINE_multi_enum("pairs", None, list(PAIRS), "Teacher and student to measure; may be repeated. [preset]")
flags.DEFINE_integer("rounds", None, "steps: number of rounds. [preset]", lower_bound=1)
flags.DEFINE_integer("calls", None, "steps: number of steps of each variant per round. [preset]", lower_bound=1)
flags.DEFINE_integer("sweep_rounds", None, "sweep: number of rounds. [preset]", lower_bound=1)
flags.DEFINE_integer("way_rounds", None, "whole_way: number of rounds. [preset]", lower_bound=1)
flags.DEFINE_integer("way_epochs", None, "whole_way: epochs of the student in all stages. [preset]", lower_bound=2)
flags.DEFINE_integer("way_train", None, "whole_way: number of training images. [preset]", lower_bound=1)
flags.DEFINE_integer("way_test", None, "whole_way: number of test images. [preset]", lower_bound=1)

_FULL = {
  "parts": list(_PARTS),
  "pairs": list(PAIRS),
  "rounds": 25,
  "calls": 3,
  "epochs": 2,
  "teacher_epochs": 5,
  "limit_train": 4_000,
  "sweep_rounds": 3,
  "way_rounds": 3,
  "way_epochs": 6,
  "way_train": 20_000,
  "way_test": 5_000,
}
_QUICK = {
  "parts": ["sweep", "whole_way"],
  "pairs": ["svhn_cnn to svhn_cnn"],
  "rounds": 3,
  "calls": 1,
  "epochs": 1,
  "teacher_epochs": 1,
  "limit_train": 512,
  "sweep_rounds": 1,
  "way_rounds": 1,
  "way_epochs": 2,
  "way_train": 2_000,
  "way_test": 500,
}
PRESETS = {"full": _FULL, "quick": _QUICK}


def main(argv: Sequence[str]) -> None:
  """Runs the benchmark of the flags, writes and prints its report."""
  run_flags.start(argv, PRESETS)
  with run_flags.errors_without_traceback():
    exceeded = [limit.name for limit in _measure() if not limit.holds]
  if exceeded:
    logging.error("limits exceeded: %s", "; ".join(exceeded))
    sys.exit(1)


def _measure() -> list[Limit]:
  """Measures the parts of the flags, writes and prints the report, and returns the limits."""
  given = flags.FLAGS
  workdir = given.workdir or os.path.join("runs", "benchmark")
  parts, tables, ways, found = set(given.parts), {}, {}, []
  for pair in given.pairs:
    if parts & {"steps", "memory"}:
      times = _time(pair) if "steps" in parts else {}
      mib = _memory(pair) if "memory" in parts else {}
      tables[pair] = [limits.step_row(key, times, mib) for key in names(pair)]
      found += limits.of_steps(pair, times) if times else []
    if "cache" in parts:
      found += _cache_limits(pair)
    if "whole_way" in parts:
      ways[pair] = in_new_process(whole_way.measure, _way(pair))
  if "start" in parts:
    found += _start_limits()
  if "sweep" in parts:
    rounds = [in_new_process(costs.sweep_seconds, given.epochs, given.limit_train) for _ in range(given.sweep_rounds)]
    found += limits.of_sweeps(rounds)
  title = f"Costs of distillation with batches of {given.batch_size} on {os.cpu_count()} cores ({platform.machine()})"
  print(write_report(workdir, title, tables, ways, found))  # noqa: T201  (the script's output)
  return found


def _time(pair: str) -> dict[tuple[str, str], Times]:
  given = flags.FLAGS
  turns = {}
  for kind, scheme in tqdm(names(pair), desc=f"{pair}: building", unit="variant", dynamic_ncols=True):
    turns[kind, scheme] = step(pair, kind, scheme, given.batch_size)
  return interleaved(turns, given.rounds, given.calls)


def _memory(pair: str) -> dict[tuple[str, str], float]:
  keys = tqdm(names(pair), desc=f"{pair}: memory", unit="variant", dynamic_ncols=True)
  return {key: in_new_process(costs.steps_mib, pair, *key, flags.FLAGS.batch_size) for key in keys}


def _cache_limits(pair: str) -> list[Limit]:
  size = flags.FLAGS.batch_size
  rate = in_new_process(costs.cache_rate, pair, size)
  small, large = (in_new_process(costs.cache_mib, pair, size, images) for images in (4_096, 40_960))
  return [
    Limit(f"{pair}: rate of writing a cache / teacher forward", rate, ">= 0.90", rate >= 0.90),
    limits.at_most(f"{pair}: peak memory of caching ten times the images", large / small, 1.10),
  ]


def _start_limits() -> list[Limit]:
  first = in_new_process(costs.first_step_seconds, next(iter(PAIRS)), ONLINE, "w8a8", flags.FLAGS.batch_size)
  return [
    limits.at_most("seconds that `import tfkd` adds to TensorFlow and tf_keras", costs.import_seconds(), 0.3),
    limits.at_most("seconds of the first step of a w8a8 student", first, 15.0),
  ]


def _way(pair: str) -> whole_way.Setting:
  given = flags.FLAGS
  if given.way_train < given.batch_size:
    raise ValueError(f"--way_train is {given.way_train}, but --batch_size is {given.batch_size}: use at least as many.")
  return whole_way.Setting(
    *PAIRS[pair][:2],
    epochs=given.way_epochs,
    teacher_epochs=given.teacher_epochs,
    train_images=given.way_train,
    test_images=given.way_test,
    batch_size=given.batch_size,
    rounds=given.way_rounds,
  )
