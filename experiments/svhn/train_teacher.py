"""Trains the float teacher of the SVHN homework and stores its logits, which all questions share.

python -m experiments.svhn.train_teacher
"""

from experiments import _run
from experiments.svhn import homework

if __name__ == "__main__":
  _run.main(homework.experiment([]))
