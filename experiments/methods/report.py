"""`report.md` and the picture of the comparison of methods."""

import os
from collections.abc import Mapping, Sequence

from experiments.methods.table import BASELINE, FIVE_OBJECTIVES
from experiments.titles import data_of
from tfkd import reporting
from tfkd.ops.timing import median_ratio
from tfkd.reporting import accuracy_by_method, format_mean_std, markdown_table

PICTURE = "accuracy_by_method.png"


def write_report(
  workdir: str, teacher: dict, rows: Mapping[str, list[dict]], seconds: Mapping[str, Sequence[float]]
) -> str:
  """Writes `report.md` and the picture into the work directory.

  Args:
    workdir: where to write.
    teacher: the teacher's row of the results.
    rows: method to rows of its students.
    seconds: method to seconds per training step, one number for each round.

  Returns:
    The report's text, followed by the paths of the files.
  """
  row = rows[BASELINE][0]
  seeds = sorted({row["seed"] for found in rows.values() for row in found})
  title = f"{row['scheme']} {row['config']['student']} students on {data_of(teacher)}"
  text = (
    f"# Methods: {title}\n\n"
    f"Test accuracy in percent on all {teacher['test_images']:,} test images, mean ± standard deviation over seeds "
    f"({', '.join(map(str, seeds))}). Teacher {100 * teacher['accuracy']:.2f} ({teacher['parameters']:,} parameters), "
    f"students with {row['parameters']:,} parameters, {row['config']['epochs']} epochs of {row['train_images']:,} "
    "images; labels have weight 1 in every method. Gain: difference to the student of `labels` with the same seed, the "
    "same initial weights and the same order of images. Cost of a step: median of its time over that of `labels`, "
    "which runs the teacher too, measured in turns.\n\n"
  )
  text += _table(rows, seconds)
  if {FIVE_OBJECTIVES, "soft_targets"} <= rows.keys():
    ratio = median_ratio(seconds[FIVE_OBJECTIVES], seconds["soft_targets"])
    text += f"\nFive objectives on four layers: {ratio:.2f} of a step with soft targets alone.\n"
  text += f"\n![Accuracy by method]({PICTURE})\n"
  accuracies = {method: [row["accuracy"] for row in found] for method, found in rows.items()}
  accuracy_by_method(os.path.join(workdir, PICTURE), accuracies, BASELINE, title)
  return reporting.write_report(workdir, text, [PICTURE])


def _table(rows: Mapping[str, list[dict]], seconds: Mapping[str, Sequence[float]]) -> str:
  accuracies = {method: [row["accuracy"] for row in found] for method, found in rows.items()}
  ordered = sorted(accuracies, key=lambda method: -sum(accuracies[method]) / len(accuracies[method]))
  baseline = {row["seed"]: row["accuracy"] for row in rows[BASELINE]}
  lines = [
    [
      f"`{method}`",
      format_mean_std(accuracies[method], 100),
      format_mean_std([row["accuracy"] - baseline[row["seed"]] for row in rows[method]], 100),
      format_mean_std([row["agreement"] for row in rows[method]], 100),
      f"{median_ratio(seconds[method], seconds[BASELINE]):.2f}",
    ]
    for method in ordered
  ]
  return markdown_table(["method", "accuracy", "gain", "agreement with teacher", "cost of a step"], lines)
