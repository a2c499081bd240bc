"""Simple baseline: the homework's sample student on labels alone.

python -m experiments.food11.simple --data_dir=food11
"""

from absl import app, flags

from experiments.food11 import compression

flags.adopt_module_key_flags(compression)  # So that --help lists them.


def main(argv):
  compression.run(argv, ["simple"])


if __name__ == "__main__":
  app.run(main)
