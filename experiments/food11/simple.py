"""Simple baseline: the homework's sample student on labels alone.

python -m experiments.food11.simple --data_dir=food11
"""

from experiments import _run
from experiments.food11 import baselines

if __name__ == "__main__":
  _run.main(baselines.experiment("simple"))
