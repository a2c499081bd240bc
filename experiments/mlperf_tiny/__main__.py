r"""MLPerf Tiny's image classification: does a teacher make the quantized file better?

IC01's ResNet-8 of 78,666 parameters learns from labels, and from IC02's network, which has six times as many. Float
students continue quantized with the same loss. Every file is measured on the whole test set. An interrupted run
continues where it stopped.

  python -m experiments.mlperf_tiny --preset=quick --data_dir=cifar10_train_jpeg.tar.xz
  python -m experiments.mlperf_tiny --preset=full --data_dir=cifar10_train_jpeg.tar.xz --reference_dir=trained_models
"""

from experiments import _run
from experiments.mlperf_tiny.files import EXPERIMENT

if __name__ == "__main__":
  _run.main(EXPERIMENT)
