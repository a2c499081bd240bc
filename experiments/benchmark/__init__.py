"""The benchmarks under their earlier command; see `experiments.benchmarks`."""
