"""`report.md` and the pictures of a CIFAR-10 laboratory."""

import os
from collections.abc import Mapping

import numpy as np

from experiments.titles import copies, data_of
from tfkd import reporting
from tfkd.reporting import (
  compare,
  format_mean_std,
  markdown_table,
  new_figure,
  save_figure,
  training_curves,
)

CURVES, GRID = "training_curves.png", "grid.png"
METHODS = {
  "teacher": "teacher, labels",
  "labels": "student, labels",
  "response": "student, response",
  "feature": "student, features",
}
_PUBLISHED = "published, CIFAR-10"


def write_report(
  workdir: str,
  published: Mapping[str, tuple[float, float]],
  published_grid: Mapping[tuple[float, float], float],
  rows: Mapping[str, list[dict]],
  grid: Mapping[tuple[float, float], list[dict]],
) -> str:
  """Writes `report.md` and the pictures into the work directory.

  Args:
    workdir: where to write.
    published: method to (test loss, test accuracy in percent).
    published_grid: (temperature, alpha) to test accuracy in percent.
    rows: "teacher", "labels", "response" and "feature" to rows of the results.
    grid: (temperature, alpha) to rows of students of soft targets; empty for no grid.

  Returns:
    The report's text, followed by the paths of the files.
  """
  (teacher,) = rows["teacher"]
  student = rows["labels"][0]
  flags = student["config"]
  seeds = sorted({row["seed"] for row in rows["labels"]})
  title = f"{flags['teacher']} teaches {flags['student']} on {data_of(teacher)}"
  text = (
    f"# {title}\n\n"
    f"Measured on all {teacher['test_images']:,} test images after {flags['teacher_epochs']} epochs of the teacher and "
    f"{flags['epochs']} of each student, on {teacher['train_images']:,} training images. Mean ± standard deviation "
    f"over seeds ({', '.join(map(str, seeds))}); one teacher. Loss is the cross-entropy with the labels in every "
    "row; the published losses of distilled students include the terms of distillation.\n\n"
  )
  text += _comparison(rows, published)
  text += f"\n{_settings(rows)}\n\n{_paragraph(rows)}\n\n![Training curves]({CURVES})\n"
  training_curves(
    os.path.join(workdir, CURVES), {METHODS[m]: [row["history"] for row in rows[m]] for m in METHODS}, title
  )
  pictures = [CURVES]
  if grid:
    seeds = sorted({row["seed"] for found in grid.values() for row in found})
    text += f"\n## Temperature and alpha of the response-based student\n\nSeeds: {', '.join(map(str, seeds))}.\n\n"
    text += _grid(grid, published_grid)
    text += f"\n![Accuracy over temperature and alpha]({GRID})\n"
    accuracies = {setting: [row["accuracy"] for row in found] for setting, found in grid.items()}
    _heat_map(os.path.join(workdir, GRID), accuracies, "temperature", "alpha", f"response-based: {title}")
    pictures.append(GRID)
  return reporting.write_report(workdir, text, pictures)


def _comparison(rows, published):
  table = []
  for method, words in METHODS.items():
    found, (loss, accuracy) = rows[method], published[method]
    table.append([
      words,
      f"{found[0]['parameters']:,}",
      format_mean_std([row["loss"] for row in found], digits=3),
      f"{loss:.2f}",
      format_mean_std([row["accuracy"] for row in found], 100),
      f"{accuracy:.2f}",
      format_mean_std([row["agreement"] for row in found], 100),
    ])  # fmt: skip
  measured = f"test accuracy{copies(rows['teacher'][0])}, %"
  header = ["model", "parameters", "test loss", _PUBLISHED, measured, _PUBLISHED, "agreement with teacher"]
  return markdown_table(header, table)


def _settings(rows):
  (response, *_), (feature, *_) = rows["response"], rows["feature"]
  alpha, choices = response["choices"]["alpha"], feature["choices"]
  return (
    f"Response: {alpha:g} T² KL + {1 - alpha:g} cross-entropy at T = {response['temperature']:g}. "
    f"Features: {choices['feature_weight']:g} × mean of the {choices['feature_loss']} losses over "
    f"{choices['stages'].replace('+', ', ')} + {choices['feature_hard_weight']:g} cross-entropy."
  )


def _paragraph(rows):
  """Returns sentences that compare the students, given the spread over seeds."""
  accuracies = {method: [row["accuracy"] for row in rows[method]] for method in METHODS}
  return " ".join(
    compare(f"the {method}-based student", accuracies[method], "the student from scratch", accuracies["labels"])
    for method in ("response", "feature")
  )


def _grid(grid, published):
  table = []
  for (temperature, alpha), rows in sorted(grid.items()):
    known = published.get((temperature, alpha))
    table.append([
      f"{temperature:g}",
      f"{alpha:g}",
      format_mean_std([row["loss"] for row in rows], digits=3),
      format_mean_std([row["accuracy"] for row in rows], 100),
      "–" if known is None else f"{known:.2f}",
    ])  # fmt: skip
  (row, *_), *_ = grid.values()
  return markdown_table(["T", "alpha", "test loss", f"test accuracy{copies(row)}, %", _PUBLISHED], table)


def _heat_map(path, cells, x_label, y_label, title):
  """Draws mean accuracies over two choices; combinations that were not run stay empty.

  Args:
    path: `.png` to write.
    cells: dict from (x, y), numbers, to list of accuracies in [0, 1].
    x_label, y_label: labels of the axes.
    title: title of the picture.
  """
  columns, rows = (sorted({key[axis] for key in cells}) for axis in (0, 1))
  means = np.full((len(rows), len(columns)), np.nan)
  for (x, y), values in cells.items():
    means[rows.index(y), columns.index(x)] = 100 * np.mean(values)
  figure, axes = new_figure(2.5 + 0.9 * len(columns), 1.6 + 0.6 * len(rows))
  image = axes.imshow(means, cmap="viridis", aspect="auto", origin="lower")
  middle = (np.nanmin(means) + np.nanmax(means)) / 2
  for row, column in np.argwhere(np.isfinite(means)):
    value = means[row, column]
    axes.text(column, row, f"{value:.1f}", ha="center", va="center", color="white" if value < middle else "black")
  axes.set_xticks(range(len(columns)), [f"{x:g}" for x in columns])
  axes.set_yticks(range(len(rows)), [f"{y:g}" for y in rows])
  axes.set_xlabel(x_label)
  axes.set_ylabel(y_label)
  axes.set_title(title, fontsize=10)
  figure.colorbar(image, label="test accuracy, %")
  save_figure(figure, path)
