"""Writes submission.csv: the classes that a trained student sees in the evaluation images.

Columns are Id, of four digits from 0000 in the order of file names, and Category. The students are those that simple,
medium, strong and boss left in the workdir, of the same flags.

  python -m experiments.food11.submit --data_dir=food11
"""

import csv
import os

from absl import app, flags, logging

from experiments import run_flags
from experiments.food11 import compression
from tfkd.storage.files import atomic_path

flags.adopt_module_key_flags(compression)  # So that --help lists them.
flags.DEFINE_enum(
  "submitted", None, compression.METHODS, "Whose best seed answers; by default, of all the best on validation images."
)


def main(argv):
  run_flags.start(argv, compression.PRESETS)
  given = flags.FLAGS
  methods = [given.submitted] if given.submitted else compression.METHODS
  with run_flags.errors_without_traceback():
    sweep = compression.open_sweep()
    if not sweep.writes:
      return
    trained = {}
    keys = [(method, seed) for method in methods for seed in run_flags.seeds()]
    for student in (compression.student(*key, sweep.steps) for key in keys):
      for row in sweep.results.find(**student.key):
        trained[student.name] = (row["accuracy"], student)
    if not trained:
      raise ValueError(
        f"{compression.workdir()} has no student of {', '.join(methods)} with these flags: train one first, as with "
        f"python -m experiments.food11.{methods[-1]}."
      )
    accuracy, student = max(trained.values(), key=lambda pair: pair[0])
    logging.info("%s answers, %.2f %% on the validation images", student.name, 100 * accuracy)
    categories = sweep.predict(student, "evaluation").argmax(axis=1)
    path = os.path.join(compression.workdir(), "submission.csv")
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
      writer = csv.writer(file, lineterminator="\n")
      writer.writerow(["Id", "Category"])
      writer.writerows((f"{number:04}", int(category)) for number, category in enumerate(categories))
  print(f"Wrote {len(categories):,} rows to {path}")  # noqa: T201  (the answer)


if __name__ == "__main__":
  app.run(main)
