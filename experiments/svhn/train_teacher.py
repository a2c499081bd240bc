"""Trains the full-precision teacher of the SVHN homework and keeps its logits, for the questions to share.

python -m experiments.svhn.train_teacher
"""

from absl import app

from experiments.svhn import homework


def main(argv):
  homework.run(argv, [])


if __name__ == "__main__":
  app.run(main)
