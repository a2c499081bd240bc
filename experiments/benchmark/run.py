"""Earlier name of `python -m experiments.benchmarks`, the costs of distillation."""

from experiments.benchmarks import __main__ as benchmarks

if __name__ == "__main__":
  benchmarks.main()
