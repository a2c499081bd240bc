"""Images per second of decoding, input and training; the same as `experiments.benchmarks throughput`."""

from experiments import _run
from experiments.benchmarks import throughput

if __name__ == "__main__":
  _run.main(throughput.main)
