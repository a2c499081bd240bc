"""Measures the costs of distillation.

  python -m experiments.benchmarks              the suite: steps, memory, cache, start, sweep, whole way to a file
  python -m experiments.benchmarks step_cost    time and memory of a large step at several batch sizes
  python -m experiments.benchmarks throughput   images per second of decoding, input and training

Each of the three lists its flags with --help.
"""

import importlib
import sys

from experiments import _run

BENCHMARKS = ("suite", "step_cost", "throughput")


def main() -> None:
  """Runs the benchmark that the first argument names; the suite if it names none."""
  name = sys.argv.pop(1) if sys.argv[1:2] and sys.argv[1] in BENCHMARKS else "suite"
  benchmark = importlib.import_module(f"experiments.benchmarks.{name}")
  sys.modules["__main__"].__doc__ = benchmark.__doc__  # absl prints it for --help.
  _run.main(benchmark.main)


if __name__ == "__main__":
  main()
