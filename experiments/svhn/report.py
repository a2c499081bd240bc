"""`report.md` and the picture of the SVHN homework."""

import os
from collections.abc import Mapping, Sequence

import numpy as np

from experiments.svhn.questions import METHODS, PUBLISHED, PUBLISHED_Q1
from experiments.titles import copies, data_of
from tfkd import reporting
from tfkd.reporting import format_mean_std, markdown_table, mean_and_std, new_figure, save_figure

PICTURE = "accuracy_vs_temperature.png"
_PUBLISHED = "published, SVHN"


def write_report(workdir: str, rows: Sequence[dict], scheme: str) -> str:
  """Writes `report.md` and the picture into the work directory.

  Args:
    workdir: where to write.
    rows: all rows of the results.
    scheme: the students' scheme for q2 to q4.

  Returns:
    The report's text, followed by the paths of the files.
  """
  (teacher,) = [row for row in rows if row["role"] == "teacher"]
  q1 = _q1(rows, teacher)
  picture = os.path.join(workdir, PICTURE)
  seeds = sorted({row["seed"] for row in rows if row["role"] == "student"})
  text = (
    f"# SVHN homework on {data_of(teacher)}\n\n"
    f"Test accuracy in percent on all {teacher['test_images']:,} test images, after training on "
    f"{teacher['train_images']:,} training images. Mean ± standard deviation over seeds "
    f"({', '.join(map(str, seeds))}). "
    "The homework measured the published accuracies on one minibatch of 256 of SVHN.\n"
  )
  text += f"\n## Question 1: a quantized student, without and with the teacher\n\n{q1}"
  if any(row["experiment"] in METHODS for row in rows):
    lines = {q: _by_temperature(rows, q, scheme) for q in METHODS}
    text += f"\n## Questions 2 to 4: temperature ({scheme} students)\n\n{_temperature_table(lines)}"
    text += (
      "\nq2: soft cross-entropy from the teacher alone. q3: hard loss + weight * T² * soft cross-entropy from the "
      "teacher. q4: as q3, with the ground-truth labels in place of the teacher.\n"
    )
    _accuracy_against_temperature(
      picture,
      {f"{q}: {METHODS[q]}": points for q, points in lines.items()},
      {
        "float teacher": [teacher["accuracy"]],
        f"q1: {scheme}, teacher labels": _accuracies(rows, "q1", "teacher labels", scheme),
        f"q1: {scheme}, labels": _accuracies(rows, "q1", "labels", scheme),
      },
      f"{scheme} students of the SVHN homework on {data_of(teacher)}",
    )
    text += f"\n![Accuracy over temperature]({PICTURE})\n"
  deployed = [row for row in rows if "tflite_accuracy" in row]
  if deployed:
    text += f"\n## Exported files\n\n{_deployed_table(deployed)}"
  return reporting.write_report(workdir, text, [PICTURE] if PICTURE in text else [])


def _q1(rows: Sequence[dict], teacher: dict) -> str:
  table = [_q1_row("float, labels (baseline)", [teacher], teacher, "teacher")]
  schemes = list(dict.fromkeys(row["scheme"] for row in rows if row["experiment"] == "q1"))
  for scheme in schemes:
    for method, words in (("labels", "without teacher"), ("teacher labels", "with teacher")):
      found = [r for r in rows if (r["experiment"], r["method"], r["scheme"]) == ("q1", method, scheme)]
      table.append(_q1_row(f"{scheme}, {words}", found, teacher, method))
  return markdown_table(
    [
      "student",
      f"accuracy{copies(teacher)}",
      _PUBLISHED,
      "agreement with teacher",
      "bytes of the file (float: of the weights)",
      "share of float32",
    ],
    table,
  )


def _q1_row(name: str, rows: Sequence[dict], teacher: dict, published: str) -> list[str]:
  # A float student has no file.
  size = rows[0].get("tflite_bytes", rows[0]["packed_bytes"]) if rows else None
  return [
    name,
    format_mean_std([r["accuracy"] for r in rows], 100),
    f"{PUBLISHED_Q1[published]:.2f}",
    format_mean_std([r["agreement"] for r in rows], 100),
    f"{size:,}" if rows else "–",
    f"{size / teacher['float32_bytes']:.3f}" if rows else "–",
  ]


def _temperature_table(lines: Mapping[str, Mapping[float, list[float]]]) -> str:
  temperatures = sorted({t for points in lines.values() for t in points})
  header = ["T"] + [title for q in METHODS for title in (f"{q}: {METHODS[q]}", _PUBLISHED)]
  rows = []
  for t in temperatures:
    row = [f"{t:g}"]
    for question, points in lines.items():
      published = PUBLISHED[question].get(t)
      row += [format_mean_std(points.get(t, []), 100), f"{published:.2f}" if published else "–"]
    rows.append(row)
  return markdown_table(header, rows)


def _deployed_table(rows: Sequence[dict]) -> str:
  groups = dict.fromkeys((r["experiment"], r["scheme"], r["method"], r["temperature"]) for r in rows)
  table = []
  for question, scheme, method, temperature in groups:
    found = [
      r
      for r in rows
      if (r["experiment"], r["scheme"], r["method"], r["temperature"]) == (question, scheme, method, temperature)
    ]
    at = "" if temperature is None else f", T = {temperature:g}"
    table.append([
      f"{question}: {scheme}, {method}{at}",
      format_mean_std([r["accuracy"] for r in found], 100),
      format_mean_std([r["tflite_accuracy"] for r in found], 100),
      f"{found[0]['tflite_bytes']:,}",
      f"{found[0]['tflite_bytes'] / found[0]['float32_bytes']:.3f}",
    ])  # fmt: skip
  return markdown_table(
    ["student", "Keras accuracy", "TFLite accuracy", "bytes of the file", "share of float32 weights"], table
  )


def _accuracies(rows: Sequence[dict], question: str, method: str, scheme: str) -> list[float]:
  return [r["accuracy"] for r in rows if (r["experiment"], r["method"], r["scheme"]) == (question, method, scheme)]


def _by_temperature(rows: Sequence[dict], question: str, scheme: str) -> dict[float, list[float]]:
  points = {}
  for row in rows:
    if row["experiment"] == question and row["scheme"] == scheme:
      points.setdefault(row["temperature"], []).append(row["accuracy"])
  return points


def _accuracy_against_temperature(path, lines, levels, title):
  """Draws accuracy over temperature with stds over seeds.

  Args:
    path: `.png` to write.
    lines: dict from label to dict from temperature to list of accuracies in [0, 1].
    levels: dict from label to list of accuracies of students without a temperature: horizontal lines.
    title: title of the picture.
  """
  figure, axes = new_figure(8, 4.8)
  for (label, values), style in zip(levels.items(), ("-", "--", ":", "-."), strict=False):
    if values:
      mean = 100 * np.mean(values)
      axes.axhline(mean, color="0.35", linestyle=style, linewidth=1.2, label=f"{label}: {mean:.1f} %")
  temperatures = sorted({t for points in lines.values() for t in points})
  for offset, (label, points) in enumerate(lines.items()):
    if not points:
      continue
    x = np.array([temperatures.index(t) for t in sorted(points)]) + 0.06 * (offset - (len(lines) - 1) / 2)
    means, stds = zip(*(mean_and_std(points[t], 100) for t in sorted(points)), strict=True)
    axes.errorbar(x, means, stds, marker="o", capsize=3, linewidth=1.6, label=label)
  axes.set_xticks(range(len(temperatures)), [f"{t:g}" for t in temperatures])
  axes.set_xlabel("temperature")
  axes.set_ylabel("test accuracy, %")
  axes.set_title(title, fontsize=10)
  axes.grid(axis="y", alpha=0.3)
  axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
  save_figure(figure, path)
