"""Question 1: the quantized student on labels alone, and on the teacher's class probabilities.

Trains two students for each seed. Trains the teacher first where the work directory has none.

  python -m experiments.svhn.q1 --preset=quick
"""

from experiments import _run
from experiments.svhn import homework

if __name__ == "__main__":
  _run.main(homework.experiment(["q1"]))
