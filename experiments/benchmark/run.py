"""Times training steps, memory, the cache and a sweep; see `experiments.benchmarks.steps`."""

from experiments import _run
from experiments.benchmarks import steps

if __name__ == "__main__":
  _run.main(steps.main)
