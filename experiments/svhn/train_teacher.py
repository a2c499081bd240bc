"""Trains the full-precision teacher of the SVHN homework and keeps its logits, for the questions to share.

python -m experiments.svhn.train_teacher
"""

from absl import app, flags

from experiments import run_flags
from experiments.svhn import homework

for module in (run_flags, homework):
  flags.adopt_module_key_flags(module)  # So that --help lists them.


def main(argv):
  homework.run(argv, [])


if __name__ == "__main__":
  app.run(main)
