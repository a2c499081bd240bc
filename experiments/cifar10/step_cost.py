"""Time and memory of a step of laboratory B; the same as `python -m experiments.benchmarks step_cost`."""

from experiments import _run
from experiments.benchmarks import step_cost

if __name__ == "__main__":
  _run.main(step_cost.main)
