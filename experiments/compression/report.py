"""`report.md` and the picture of the compression table."""

import os
from collections.abc import Mapping, Sequence

import numpy as np

from experiments.compression.variants import FILES, FLOAT_STUDENT, FLOAT_TEACHER, PAIRS, PTQ_INT4, TRAINED
from experiments.file_report import PICTURE, comparisons, draw_accuracy_against_bytes, mean, values
from experiments.titles import data_of
from tfkd import reporting
from tfkd.reporting import format_mean_std, markdown_table

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
  title = f"{student} on {data_of(teacher)}"
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
  picture = os.path.join(workdir, PICTURE)
  draw_accuracy_against_bytes(picture, groups, f"Files of {title}", _style, has_front=True)
  return reporting.write_report(workdir, text, [PICTURE])


def _row(name: str, rows: list[dict], baseline: list[dict]) -> list[str]:
  size = mean(rows, "bytes")
  return [
    name,
    format_mean_std(values(rows, "accuracy") if name != FLOAT_TEACHER else [rows[0]["accuracy"]], 100),
    f"{rows[0]['parameters']:,}",
    f"{size:,.0f}",
    f"{size / mean(baseline, 'bytes'):.3f}",
    f"{np.median(values(rows, 'median_ms')):.3f}",
    f"{np.median(values(rows, 'p95_ms')):.3f}",
    f"{np.median(values(rows, 'ratio')):.2f}",
    f"{100 * min(values(rows, 'agreement')):.2f}",
  ]


def _fidelity(groups: Mapping[str, list[dict]]) -> str:
  """Returns a sentence on the differences between files and the quantization-aware Keras models they are made of."""
  rows = [row for name in TRAINED for row in groups[name]]
  apart = max(abs(row["accuracy"] - row["student_accuracy"]) for row in rows)
  steps = max(row["worst_steps"] or 0 for row in rows)
  agreement = min(values(rows, "agreement"))
  return (
    f"At worst, the accuracy of a quantization-aware student's file differs by {100 * apart:.2f} points from its Keras "
    f"model's, {100 * agreement:.2f} % of the images have the same class, and a logit differs by {steps:.0f} steps of "
    "the output's grid."
  )


def _order(groups: Mapping[str, list[dict]]) -> str:
  """Returns findings: QAT against PTQ at four bits, and distilled against other students of each scheme."""
  pairs = [("QAT int4", PTQ_INT4), *((distilled, name) for name, distilled in PAIRS.items())]
  return comparisons(groups, pairs)


def _style(name: str) -> dict[str, str]:
  return {"marker": "o" if FILES.index(name) < 10 else "s"}  # matplotlib has ten colors.
