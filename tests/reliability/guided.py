"""Gives a reader damaged files that atheris chooses by the lines of tfkd that they reach.

`tests.reliability.run` damages files at random; this command damages files further that reached new lines. It ends with
status 0 after --files of them, or with an error at the first defect, whose file it writes to `crash-...`.

  pip install atheris
  python -m tests.reliability.guided --reader=results --files=20000
"""

import os
import sys
import tempfile

import atheris
from absl import app, flags, logging

with atheris.instrument_imports(include=["tfkd"]):
  from tests.reliability.fuzz import OUTCOMES, outcome, valid_file
  from tests.reliability.readers import READERS

flags.DEFINE_enum("reader", None, list(READERS), "Reader whose files are damaged.", required=True)
flags.DEFINE_integer("files", 10_000, "Number of damaged files.", lower_bound=1)
flags.DEFINE_integer("seed", 1, "Seed of the damage.", lower_bound=1)
_LONGEST, _MEGABYTES = 60, 8192  # Time limit of one file in seconds; memory limit of the process.


def main(argv):
  if len(argv) > 1:
    raise app.UsageError(f"unknown arguments: {' '.join(argv[1:])}. Flags are written --name=value.")
  logging.set_verbosity(logging.ERROR)
  given = flags.FLAGS
  folder = tempfile.mkdtemp()
  reader, path, file, valid = valid_file(given.reader, folder)
  corpus = os.path.join(folder, "corpus")
  os.mkdir(corpus)
  with open(os.path.join(corpus, "valid"), "wb") as opened:
    opened.write(valid["bytes"])

  def run(content):
    found = outcome(reader, path, file, valid, content)
    if found in OUTCOMES[2:]:
      raise AssertionError(f"{given.reader}: a damaged file was {found}")

  limits = [f"-timeout={_LONGEST}", f"-rss_limit_mb={_MEGABYTES}", f"-max_len={2 * len(valid['bytes'])}"]
  atheris.Setup([sys.argv[0], f"-runs={given.files}", f"-seed={given.seed}", *limits, corpus], run)
  atheris.Fuzz()


if __name__ == "__main__":
  app.run(main)
