"""Strong baseline: a student of depthwise-separable blocks just below the limit, trained longer, with medium's loss.

python -m experiments.food11.strong --data_dir=food11
"""

from absl import app, flags

from experiments.food11 import compression

flags.adopt_module_key_flags(compression)  # So that --help lists them.


def main(argv):
  compression.run(argv, ["strong"])


if __name__ == "__main__":
  app.run(main)
