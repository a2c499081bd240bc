"""`report.md` and the picture of the vision transformer's experiment."""

import os

from experiments.titles import copies, data_of
from tfkd import reporting
from tfkd.reporting import compare, format_mean_std, markdown_table, training_curves

CURVES = "training_curves.png"
WORDS = {
  "labels": "student from scratch",
  "response": "student from scratch, distilled",
  "labels, pretrained": "pretrained student",
  "response, pretrained": "pretrained student, distilled",
}
"""Method to its name in the table."""


def write_report(workdir: str, rows: dict[str, list[dict]]) -> str:
  """Writes `report.md` and the picture into the work directory.

  Args:
    workdir: where to write.
    rows: "teacher" and methods of `WORDS` to rows of the results.

  Returns:
    The report's text, followed by the paths of the files.
  """
  (teacher,) = rows["teacher"]
  names = teacher["config"]
  seeds = sorted({row["seed"] for row in rows["labels"]})
  trained = "its last layer alone" if names["teacher_head_only"] else "all layers"
  title = f"{names['teacher']} teaches {names['student']} on {data_of(teacher)}"
  text = (
    f"# {title}\n\n"
    f"Measured on all {teacher['test_images']:,} test images after {names['teacher_epochs']} epochs of the "
    f"teacher ({trained}) and {names['epochs']} of each student, on {teacher['train_images']:,} training images. Mean "
    f"± standard deviation over seeds ({', '.join(map(str, seeds))}); one teacher.\n\n"
  )
  text += _table(rows)
  accuracies = {method: [row["accuracy"] for row in found] for method, found in rows.items()}
  findings = [
    compare(
      f"the {WORDS[f'response{kind}']}",
      accuracies[f"response{kind}"],
      f"the {WORDS[f'labels{kind}']}",
      accuracies[f"labels{kind}"],
    )
    for kind in ("", ", pretrained")
    if f"labels{kind}" in rows
  ]
  text += f"\n{' '.join(findings)}\n\n![Training curves]({CURVES})\n"
  histories = {WORDS[m]: [row["history"] for row in found] for m, found in rows.items() if m in WORDS}
  training_curves(os.path.join(workdir, CURVES), histories, title)
  return reporting.write_report(workdir, text, [CURVES])


def _table(rows: dict[str, list[dict]]) -> str:
  lines = [
    [
      WORDS.get(method, "teacher"),
      f"{found[0]['trainable_parameters']:,}",
      format_mean_std([row["loss"] for row in found], digits=3),
      format_mean_std([row["accuracy"] for row in found], 100),
      format_mean_std([row["agreement"] for row in found], 100),
    ]
    for method, found in rows.items()
  ]
  return markdown_table(
    ["model", "parameters", "test loss", f"test accuracy{copies(rows['teacher'][0])}, %", "agreement with teacher"],
    lines,
  )
