"""Question 3: hard loss + T^2 * soft cross-entropy from the teacher, at each temperature.

Trains one student for each temperature and seed. Trains the teacher first where the work directory has none.

  python -m experiments.svhn.q3 --preset=quick
"""

from experiments import _run
from experiments.svhn import homework

if __name__ == "__main__":
  _run.main(homework.experiment(["q3"]))
