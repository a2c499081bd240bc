"""Boss baseline: strong, with the teacher's features beside its response.

FitNet's hints at two stages, which lead the first steps and have no weight in the last; the distances and angles
between the examples of a batch (RKD); and their distances in the teacher's own units (DM). Their weights:
--hint_weight, --rkd_weight, --dm_weight.

  python -m experiments.food11.boss --data_dir=food11
"""

from absl import app, flags

from experiments.food11 import compression

flags.adopt_module_key_flags(compression)  # So that --help lists them.


def main(argv):
  compression.run(argv, ["boss"])


if __name__ == "__main__":
  app.run(main)
