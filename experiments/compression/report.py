"""`report.md` and the picture of the compression table."""

import os
from collections.abc import Mapping, Sequence

import numpy as np

from experiments.compression.variants import FILES, FLOAT_STUDENT, FLOAT_TEACHER, PAIRS, PTQ_INT4, TRAINED
from tfkd import reporting
from tfkd.reporting import compare, format_mean_std, markdown_table, mean_and_std, new_figure, save_figure

PICTURE = "accuracy_against_bytes.png"
_HEADER = [
  "model",
  "accuracy",
  "parameters",
  "file, bytes",
  "of float",
  "median, ms",
  "p95, ms",
  "of float",
  "agreement",
]


def write_report(workdir: str, teacher: dict, rows: Sequence[dict], student: str) -> str:
  """Writes `report.md` and the picture into the work directory.

  Args:
    workdir: where to write.
    teacher: the teacher's row of the results.
    rows: of all files, one for each variant and seed.
    student: name of the student's network.

  Returns:
    The report's text, followed by the paths of the files.
  """
  groups = {name: [row for row in rows if row["variant"] == name] for name in FILES}
  baseline = groups[FLOAT_STUDENT]
  seeds = sorted({row["seed"] for row in rows})
  title = f"{student} on {teacher['dataset']}"
  text = (
    f"# Files: {title}\n\n"
    f"Accuracy of the files in percent on all {teacher['test_images']:,} test images, mean ± standard deviation over "
    f"seeds ({', '.join(map(str, seeds))}); one teacher. Time is of one image on one thread, measured in turns with "
    "the float student's file; bytes and time are also given relative to that file. Agreement: the smallest share, in "
    "percent, of images for which a file and its Keras model predict the same class.\n\n"
  )
  table = [_row(name, found, baseline) for name, found in groups.items()]
  text += markdown_table(_HEADER, table)
  text += (
    "\nFiles of fewer than eight feature bits are packs, unpacked for the evaluation. LiteRT has no kernels for these "
    f"bits: the latency is that of a float file with the same arithmetic.\n\n{_fidelity(groups)}\n\n"
    f"{_order(groups)}\n\n![Accuracy against bytes]({PICTURE})\n"
  )
  _accuracy_against_bytes(
    os.path.join(workdir, PICTURE),
    {name: (_mean(found, "bytes"), _all(found, "accuracy")) for name, found in groups.items()},
    f"Files of {title}",
  )
  return reporting.write_report(workdir, text, [PICTURE])


def _row(name: str, rows: list[dict], baseline: list[dict]) -> list[str]:
  size = _mean(rows, "bytes")
  return [
    name,
    format_mean_std(_all(rows, "accuracy") if name != FLOAT_TEACHER else [rows[0]["accuracy"]], 100),
    f"{rows[0]['parameters']:,}",
    f"{size:,.0f}",
    f"{size / _mean(baseline, 'bytes'):.3f}",
    f"{np.median(_all(rows, 'median_ms')):.3f}",
    f"{np.median(_all(rows, 'p95_ms')):.3f}",
    f"{np.median(_all(rows, 'ratio')):.2f}",
    f"{100 * min(_all(rows, 'agreement')):.2f}",
  ]


def _fidelity(groups: Mapping[str, list[dict]]) -> str:
  """Returns a sentence on the differences between files and the quantization-aware Keras models they are made of."""
  rows = [row for name in TRAINED for row in groups[name]]
  apart = max(abs(row["accuracy"] - row["student_accuracy"]) for row in rows)
  steps = max(row["worst_steps"] or 0 for row in rows)
  agreement = min(_all(rows, "agreement"))
  return (
    f"At worst, the accuracy of a quantization-aware student's file differs by {100 * apart:.2f} points from its Keras "
    f"model's, {100 * agreement:.2f} % of the images have the same class, and a logit differs by {steps:.0f} steps of "
    "the output's grid."
  )


def _order(groups: Mapping[str, list[dict]]) -> str:
  """Returns findings: QAT against PTQ at four bits, and distilled against other students of each scheme."""
  pairs = [("QAT int4", PTQ_INT4), *((distilled, name) for name, distilled in PAIRS.items())]
  return " ".join(
    compare(f'"{one}"', _all(groups[one], "accuracy"), f'"{other}"', _all(groups[other], "accuracy"))
    for one, other in pairs
  )


def _all(rows: list[dict], field: str) -> list:
  return [row[field] for row in rows]


def _mean(rows: list[dict], field: str) -> float:
  return float(np.mean(_all(rows, field)))


def _accuracy_against_bytes(path: str, groups: Mapping[str, tuple[float, list[float]]], title: str) -> None:
  """Draws accuracy over the size of a file, with stds over seeds; a line connects the Pareto-optimal files.

  Args:
    path: `.png` to write.
    groups: dict from label to (bytes, list of accuracies in [0, 1]).
    title: title of the picture.
  """
  figure, axes = new_figure(8, 4.8)
  points = {label: (size / 1000, *mean_and_std(values, 100)) for label, (size, values) in groups.items()}
  best = []
  for size, mean, _ in sorted(points.values(), key=lambda point: (point[0], -point[1])):
    if not best or mean > best[-1][1]:
      best.append((size, mean))
  axes.step(*zip(*best, strict=True), where="post", color="0.7", linewidth=1.2, zorder=0)
  for number, (label, (size, mean, std)) in enumerate(points.items()):
    marker = "o" if number < 10 else "s"
    axes.errorbar(size, mean, std, marker=marker, capsize=3, linestyle="none", label=f"{label}: {mean:.1f} %")
  axes.set_xscale("log")
  axes.xaxis.get_major_locator().set_params(subs=(1, 2, 5))
  axes.xaxis.set_major_formatter("{x:g}")
  axes.xaxis.set_minor_formatter("")
  axes.set_xlabel("bytes of the file, thousands")
  axes.set_ylabel("test accuracy, %")
  axes.set_title(title, fontsize=10)
  axes.grid(alpha=0.3, which="both")
  axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
  save_figure(figure, path)
