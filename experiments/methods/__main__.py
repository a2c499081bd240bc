"""All objectives on one teacher and one student: accuracy over seeds, and the cost of a training step.

The teacher is the SVHN homework's network, the student the same network at half its width; every student has the same
labels, epochs and steps. Layers and weights suit this pair and were not searched. About 45 minutes on two cores at
--preset=full. An interrupted run continues where it stopped.

  python -m experiments.methods --preset=quick
  python -m experiments.methods --preset=full --dataset=cifar10 --data_dir=cifar10_train_jpeg.tar.xz --limit_train=20000
"""

from experiments import _run
from experiments.methods.comparison import EXPERIMENT

if __name__ == "__main__":
  _run.main(EXPERIMENT)
