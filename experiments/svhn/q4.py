"""Question 4: as question 3, with the ground-truth labels in place of the teacher.

Trains one student for each temperature and seed. The teacher of the workdir is used, or trained first.

  python -m experiments.svhn.q4 --preset=quick
"""

from absl import app, flags

from experiments import run_flags
from experiments.svhn import homework

for module in (run_flags, homework):
  flags.adopt_module_key_flags(module)  # So that --help lists them.


def main(argv):
  homework.run(argv, ["q4"])


if __name__ == "__main__":
  app.run(main)
