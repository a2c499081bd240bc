"""`report.md` and the pictures of the Food-11 homework."""

import itertools
import os
from collections.abc import Mapping

from experiments.titles import copies, data_of
from tfkd import reporting
from tfkd.reporting import accuracy_by_method, compare, format_mean_std, markdown_table, training_curves

ACCURACIES, CURVES = "accuracy_by_method.png", "training_curves.png"
# Required accuracies on the homework's evaluation images.
THRESHOLDS = {"simple": 0.46528, "medium": 0.69161, "strong": 0.78629, "boss": 0.82146}


def write_report(workdir: str, teacher: dict, rows: Mapping[str, list[dict]]) -> str:
  """Writes `report.md` and the pictures into the work directory.

  Args:
    workdir: where to write.
    teacher: the teacher's row of the results.
    rows: method to rows of its students, in the order of the baselines.

  Returns:
    The report's text, followed by the paths of the files.
  """
  seeds = sorted({row["seed"] for found in rows.values() for row in found})
  title = f"Food-11 compression homework on {data_of(teacher)}"
  text = (
    f"# {title}\n\n"
    f"Accuracy on all {teacher['test_images']:,} test images; {teacher['train_images']:,} training images. Mean ± "
    f"standard deviation over seeds ({', '.join(map(str, seeds))}); one teacher.\n\n"
  )
  is_food = teacher["dataset"] == "food11"
  text += _table(teacher, rows, is_food)
  if is_food:
    text += (
      "\nThe thresholds are accuracies on the evaluation images, whose labels are not public; this table has "
      "accuracies on the validation images.\n"
    )
  accuracies = {method: [row["accuracy"] for row in found] for method, found in rows.items()}
  findings = [compare(b, accuracies[b], a, accuracies[a]) for a, b in itertools.pairwise(rows)]
  if findings:
    text += f"\n{' '.join(findings)}\n"
  text += f"\n![Accuracy by method]({ACCURACIES})\n\n![Training curves]({CURVES})\n"
  accuracy_by_method(os.path.join(workdir, ACCURACIES), accuracies, next(iter(rows)), title)
  training_curves(
    os.path.join(workdir, CURVES), {m: [row["history"] for row in found] for m, found in rows.items()}, title
  )
  return reporting.write_report(workdir, text, [ACCURACIES, CURVES])


def _table(teacher: dict, rows: Mapping[str, list[dict]], with_thresholds: bool) -> str:
  flags = teacher["config"]
  networks = {"teacher": flags["teacher"]}
  networks |= {method: found[0]["choices"].get("network", flags["student"]) for method, found in rows.items()}
  measured = f"test accuracy{copies(teacher)}, %"
  header = ["method", "network", "parameters", "epochs", "test loss", measured, "agreement with teacher"]
  table = []
  for method, found in ({"teacher": [teacher]} | rows).items():
    line = [
      method,
      networks[method],
      f"{found[0]['trainable_parameters']:,}",
      str(len(found[0]["history"].get("loss", ()))),
      format_mean_std([row["loss"] for row in found], digits=3),
      format_mean_std([row["accuracy"] for row in found], 100),
      format_mean_std([row["agreement"] for row in found], 100),
    ]
    if with_thresholds:
      threshold = THRESHOLDS.get(method)
      above = sum(row["accuracy"] >= threshold for row in found) if threshold else 0
      line += [f"{100 * threshold:.2f}", f"{above} of {len(found)}"] if threshold else ["–", "–"]
    table.append(line)
  return markdown_table(header + ["threshold, %", "seeds above it"] * with_thresholds, table)
