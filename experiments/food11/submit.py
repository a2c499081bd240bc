"""Writes submission.csv: the classes that a trained student predicts for the evaluation images.

Columns are Id, four digits from 0000 in the order of file names, and Category. Candidates are the students that simple,
medium, strong and boss trained in the same work directory with the same flags.

  python -m experiments.food11.submit --data_dir=food11
"""

import csv
import io
from collections.abc import Sequence

from absl import flags, logging

from experiments import _run, run_flags
from experiments.food11 import baselines
from tfkd.storage.files import write_text
from tfkd.sweeps import StudentSpec, Sweep

flags.DEFINE_enum(
  "submitted",
  None,
  baselines.METHODS,
  "Method whose best seed is submitted; by default the best student of all methods on the validation images.",
)


def main(argv: Sequence[str]) -> None:
  """Writes the submission of the best trained student."""
  experiment = baselines.experiment("simple")
  run_flags.start(argv, experiment.presets)
  with run_flags.errors_without_traceback():
    sweep = _run.open_sweep(experiment)
    if not sweep.writes:
      return
    student, accuracy = _best(sweep, [flags.FLAGS.submitted] if flags.FLAGS.submitted else baselines.METHODS)
    logging.info("%s is submitted, %.2f %% on the validation images", student.name, 100 * accuracy)
    categories = sweep.predict(student, "evaluation").argmax(axis=1)
    path = sweep.path("submission.csv")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["Id", "Category"])
    writer.writerows((f"{number:04}", int(category)) for number, category in enumerate(categories))
    write_text(path, text.getvalue())
  print(f"Wrote {len(categories):,} rows to {path}")  # noqa: T201  (the script's output)


def _best(sweep: Sweep, methods: Sequence[str]) -> tuple[StudentSpec, float]:
  trained = {}
  for method in methods:
    for seed in run_flags.seeds():
      student = baselines.student(method, seed, sweep.steps)
      for row in sweep.results.find(**student.key):
        trained[student.name] = (student, row["accuracy"])
  if not trained:
    raise ValueError(
      f"{sweep.path()} has no student of {', '.join(methods)} with these flags: train one first, for example with "
      f"python -m experiments.food11.{methods[-1]}."
    )
  return max(trained.values(), key=lambda pair: pair[1])


if __name__ == "__main__":
  _run.main(main)
