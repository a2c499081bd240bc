"""Question 1: the quantized student on labels alone, and on the teacher's labels.

Trains two students for each seed. The teacher of the workdir is used, or trained first.

  python -m experiments.svhn.q1 --preset=quick
"""

from absl import app, flags

from experiments import run_flags
from experiments.svhn import homework

for module in (run_flags, homework):
  flags.adopt_module_key_flags(module)  # So that --help lists them.


def main(argv):
  homework.run(argv, ["q1"])


if __name__ == "__main__":
  app.run(main)
