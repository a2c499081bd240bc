"""Kills and damages small trainings, and gives damaged files to readers.

Prints tables of attempts and losses, and exits with status 1 if anything was lost. A training that is killed and
restarted must end with the same weights as an uninterrupted one, bit by bit, and the same results except for durations.

  python -m tests.reliability.run
  python -m tests.reliability.run --parts=kills --kills=100
"""

import os
import sys
import tempfile
from collections.abc import Sequence

from absl import app, flags, logging
from tqdm import tqdm

from tests.reliability import trials
from tests.reliability.fuzz import OUTCOMES, fuzz
from tests.reliability.jobs import Jobs
from tests.reliability.readers import READERS
from tfkd import reporting
from tfkd.reporting import markdown_table

_PARTS = ("kills", "terminations", "damages", "second_process", "full_disk", "workers", "servers", "fuzz")
flags.DEFINE_multi_enum("parts", _PARTS, _PARTS, "Part to run; may be repeated.")
flags.DEFINE_multi_enum("readers", list(READERS), list(READERS), "Reader whose files are damaged; may be repeated.")
flags.DEFINE_string("workdir", os.path.join("runs", "reliability"), "Directory for the report.")
flags.DEFINE_integer("kills", 20, "Number of kills.", lower_bound=1)
flags.DEFINE_integer("files", 800, "Number of damaged files per reader.", lower_bound=1)


def main(argv: Sequence[str]) -> None:
  """Runs the parts of the flags, and writes and prints the tables."""
  if len(argv) > 1:
    raise app.UsageError(f"unknown arguments: {' '.join(argv[1:])}. Flags are written --name=value.")
  logging.set_verbosity(logging.INFO)
  given = flags.FLAGS
  rows = []
  if set(given.parts) - {"fuzz"}:
    rows += _trials(given.parts, given.kills)
  text = "# Reliability\n"
  if rows:
    cells = [[row["event"], str(row["tried"]), str(row["tried"] - row["lost"]), str(row["lost"])] for row in rows]
    text += f"\n{markdown_table(['event', 'tried', 'survived', 'lost'], cells)}"
  counts = {}
  if "fuzz" in given.parts:
    for name in tqdm(given.readers, desc="readers", unit="reader", dynamic_ncols=True):
      counts[name] = fuzz(name, given.files)
    cells = [[name, str(given.files), *(str(count[outcome]) for outcome in OUTCOMES)] for name, count in counts.items()]
    text += f"\n{markdown_table(['damaged file', 'tried', *OUTCOMES], cells)}"
  print(reporting.write_report(given.workdir, text, []))  # noqa: T201  (the script's output)
  defects = sum(row["lost"] for row in rows) + sum(count[o] for count in counts.values() for o in OUTCOMES[2:])
  sys.exit(bool(defects))


def _trials(parts: Sequence[str], kills: int) -> list[trials.Row]:
  rows = []
  with tempfile.TemporaryDirectory() as folder:
    jobs = Jobs(folder)
    logging.info("an uninterrupted training takes %.0f s", jobs.seconds)
    makers = {
      "kills": lambda: [trials.kills(jobs, kills)],
      "terminations": lambda: [trials.terminations(jobs, 3)],
      "damages": lambda: trials.damages(jobs),
      "second_process": lambda: [trials.second_process(jobs)],
      "full_disk": lambda: [trials.full_disk(jobs)],
      "workers": lambda: trials.workers(jobs),
      "servers": lambda: trials.servers(jobs),
    }
    for part, make in makers.items():
      if part in parts:
        made = [row for row in make() if row]
        for row in made:
          logging.info("%s: %d tried, %d lost", row["event"], row["tried"], row["lost"])
        if not made:
          logging.warning("%s was skipped: this process has no permission to mount a file system", part)
        rows += made
  return rows


if __name__ == "__main__":
  app.run(main)
