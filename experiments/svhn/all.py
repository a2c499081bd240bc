"""The whole SVHN homework: questions 1 to 4, and question 1 again with w8a8 students exported to TFLite.

An interrupted run continues where it stopped.

  python -m experiments.svhn.all --preset=quick
  python -m experiments.svhn.all --preset=full --dataset=svhn --workdir=/tmp/svhn
"""

from experiments import _run
from experiments.svhn import homework

if __name__ == "__main__":
  _run.main(homework.experiment(["q1", "q2", "q3", "q4"], deployed=True))
