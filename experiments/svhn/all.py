"""The whole SVHN homework: questions 1 to 4, and question 1 again with w8a8 students that leave as TFLite files.

Started again after an interruption, it goes on with what is missing.

  python -m experiments.svhn.all --preset=quick
  python -m experiments.svhn.all --preset=full --dataset=svhn --workdir=/tmp/svhn
"""

from absl import app, flags

from experiments import run_flags
from experiments.svhn import homework

for module in (run_flags, homework):
  flags.adopt_module_key_flags(module)  # So that --help lists them.


def main(argv):
  homework.run(argv, ["q1", "q2", "q3", "q4"], deployed=True)


if __name__ == "__main__":
  app.run(main)
