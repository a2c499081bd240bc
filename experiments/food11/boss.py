"""Boss baseline: strong, with objectives on the teacher's features added.

They are FitNet's hints at two stages, whose weight falls to zero over the training; distances and angles between the
examples of a batch (RKD); and unnormalized distances (DM). Their weights: --hint_weight, --rkd_weight, --dm_weight.

  python -m experiments.food11.boss --data_dir=food11
"""

from experiments import _run
from experiments.food11 import baselines

if __name__ == "__main__":
  _run.main(baselines.experiment("boss"))
