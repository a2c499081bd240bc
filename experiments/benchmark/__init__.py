"""Earlier name of `experiments.benchmarks`."""
