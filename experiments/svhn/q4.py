"""Question 4: as question 3, with the ground-truth labels in place of the teacher.

Trains one student for each temperature and seed. Trains the teacher first where the work directory has none.

  python -m experiments.svhn.q4 --preset=quick
"""

from experiments import _run
from experiments.svhn import homework

if __name__ == "__main__":
  _run.main(homework.experiment(["q4"]))
