"""Strong baseline: a depthwise-separable student just below the limit of parameters, trained longer with medium's loss.

python -m experiments.food11.strong --data_dir=food11
"""

from experiments import _run
from experiments.food11 import baselines

if __name__ == "__main__":
  _run.main(baselines.experiment("strong"))
