"""`report.md` and the pictures of a CIFAR-10 laboratory."""

import math
import os

import numpy as np

from tfkd.train.report import heat_map, markdown_table, mean_and_deviation, training_curves, write_text

CURVES, GRID = "training_curves.png", "grid.png"
METHODS = {
  "teacher": "teacher, labels", "labels": "student, labels", "response": "student, response",
  "feature": "student, features",
}  # fmt: skip


def write_report(workdir, laboratory, rows, responses):
  """Writes `report.md` and the pictures into the workdir.

  Args:
    workdir: where to.
    laboratory: `Laboratory`, for the published numbers.
    rows: dict from "teacher", "labels", "response" and "feature" to rows of the results.
    responses: dict from (temperature, alpha) to rows of response-based students; empty for none.

  Returns:
    The report's text, with the paths of the files at its end.
  """
  (teacher,) = rows["teacher"]
  student = rows["labels"][0]
  flags = student["flags"]
  seeds = sorted({row["seed"] for row in rows["labels"]})
  title = f"{flags['teacher']} teaches {flags['student']} on {teacher['dataset']}"
  text = (
    f"# {title}\n\n"
    f"Measured on all {teacher['test_images']:,} test images after {flags['teacher_epochs']} epochs of the teacher and "
    f"{flags['epochs']} of each student, on {teacher['train_images']:,} training images. Mean ± standard deviation "
    f"over seeds ({', '.join(map(str, seeds))}); one teacher. Loss is the cross-entropy with the labels in every "
    "row; the published losses of distilled students hold the terms of distillation too.\n\n"
  )
  text += _comparison(rows, laboratory.published)
  text += f"\n{_settings(rows)}\n\n{_paragraph(rows)}\n\n![Training curves]({CURVES})\n"
  training_curves(
    os.path.join(workdir, CURVES), {METHODS[m]: [row["history"] for row in rows[m]] for m in METHODS}, title
  )
  places = ["report.md", CURVES]
  if responses:
    seeds = sorted({row["seed"] for found in responses.values() for row in found})
    text += f"\n## Temperature and alpha of the response-based student\n\nSeeds: {', '.join(map(str, seeds))}.\n\n"
    text += _grid(responses, laboratory.published_grid)
    text += f"\n![Accuracy over temperature and alpha]({GRID})\n"
    accuracies = {setting: [row["accuracy"] for row in found] for setting, found in responses.items()}
    heat_map(os.path.join(workdir, GRID), accuracies, "temperature", "alpha", f"response-based: {title}")
    places.append(GRID)
  write_text(os.path.join(workdir, "report.md"), text)
  return text + "".join(f"\nWrote {os.path.join(workdir, place)}" for place in places)


def _comparison(rows, published):
  table = []
  for method, words in METHODS.items():
    found, (loss, accuracy) = rows[method], published[method]
    table.append([
      words,
      f"{found[0]['parameters']:,}",
      mean_and_deviation([row["loss"] for row in found], digits=3),
      f"{loss:.2f}",
      mean_and_deviation([row["accuracy"] for row in found], 100),
      f"{accuracy:.2f}",
      mean_and_deviation([row["agreement"] for row in found], 100),
    ])  # fmt: skip
  header = ["model", "parameters", "test loss", "published", "test accuracy, %", "published", "agreement with teacher"]
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
  """What the numbers support: differences of means, against the deviation of such a difference."""
  sentences = []
  for method in ("response", "feature"):
    difference, deviation = difference_of_means(*([row["accuracy"] for row in rows[m]] for m in (method, "labels")))
    sentence = f"The {method}-based student ends {abs(100 * difference):.2f} points "
    sentence += "above" if difference >= 0 else "below"
    sentence += " the student from scratch"
    if deviation is None:
      sentence += "; one seed alone does not say how much of that is chance."
    elif abs(difference) < deviation:
      sentence += f", less than the standard deviation of such a difference ({100 * deviation:.2f}): no finding."
    else:
      times = f"{abs(difference) / deviation:.1f} times " if deviation else "beyond "
      sentence += f", {times}the standard deviation of such a difference ({100 * deviation:.2f})."
    sentences.append(sentence)
  return " ".join(sentences)


def difference_of_means(one, other):
  """Difference of two means, and its standard deviation from seed to seed.

  Args:
    one, other: lists of float, one for each seed.

  Returns:
    mean(one) - mean(other), and sqrt(var(one) + var(other)), the deviation of a difference of two single runs; None in
    its place where a list has one value.
  """
  difference = float(np.mean(one) - np.mean(other))
  if min(len(one), len(other)) < 2:
    return difference, None
  return difference, math.hypot(np.std(one, ddof=1), np.std(other, ddof=1))


def _grid(responses, published):
  table = []
  for (temperature, alpha), rows in sorted(responses.items()):
    known = published.get((temperature, alpha))
    table.append([
      f"{temperature:g}",
      f"{alpha:g}",
      mean_and_deviation([row["loss"] for row in rows], digits=3),
      mean_and_deviation([row["accuracy"] for row in rows], 100),
      "–" if known is None else f"{known:.2f}",
    ])  # fmt: skip
  return markdown_table(["T", "alpha", "test loss", "test accuracy, %", "published"], table)
