"""Question 2: soft cross-entropy from the teacher alone, at each temperature.

Trains one student for each temperature and seed. The teacher of the workdir is used, or trained first.

  python -m experiments.svhn.q2 --preset=quick
"""

from absl import app, flags

from experiments import run_flags
from experiments.svhn import homework

for module in (run_flags, homework):
  flags.adopt_module_key_flags(module)  # So that --help lists them.


def main(argv):
  homework.run(argv, ["q2"])


if __name__ == "__main__":
  app.run(main)
