"""`report.md` and the picture of the table of files."""

import os
from collections.abc import Sequence

import numpy as np

from tfkd import reporting
from tfkd.reporting import compare, format_mean_std, markdown_table, mean_and_std, new_figure, save_figure

PICTURE = "accuracy_against_bytes.png"
FLOAT, TEACHER = "float", "teacher"
FILES = {
  TEACHER: (FLOAT, False),
  "float, labels": (FLOAT, False),
  "float, distilled": (FLOAT, True),
  "PTQ int8, labels": (FLOAT, False),
  "PTQ int8, distilled": (FLOAT, True),
  "w8a8, labels": ("w8a8", False),
  "w8a8, distilled": ("w8a8", True),
  "w4a8, labels": ("w4a8", False),
  "w4a8, distilled": ("w4a8", True),
}
"""Scheme of the model that a file is made of, and whether that is distilled, in the order of the table."""
PTQ = ("PTQ int8, labels", "PTQ int8, distilled")
"""Files that the converter quantizes after training."""
_HEADER = ["file", "accuracy", "parameters", "bytes", "of float", "agreement"]


def write_report(workdir: str, teacher: dict, rows: Sequence[dict]) -> str:
  """Writes `report.md` and the picture into the work directory.

  Args:
    workdir: where to write.
    teacher: the teacher's row of the results.
    rows: of all files, one for each variant and seed.

  Returns:
    The report's text, followed by the paths of the files.
  """
  groups = {name: [row for row in rows if row["variant"] == name] for name in FILES}
  seeds = sorted({row["seed"] for row in rows})
  size = _mean(groups["float, labels"], "bytes")
  table = [
    [
      name,
      format_mean_std(_all(found, "accuracy"), 100),
      f"{found[0]['parameters']:,}",
      f"{_mean(found, 'bytes'):,.0f}",
      f"{_mean(found, 'bytes') / size:.3f}",
      f"{100 * min(_all(found, 'agreement')):.2f}",
    ]
    for name, found in groups.items()
  ]
  text = (
    "# Transfer: traffic signs\n\n"
    f"Accuracy of the files in percent on all {teacher['test_images']:,} test images, whose tracks are not in the "
    f"training set; mean ± standard deviation over seeds ({', '.join(map(str, seeds))}); one teacher. Bytes are also "
    "given relative to the float student's file. Agreement: the smallest share, in percent, of images for which a "
    "file and its Keras model predict the same class.\n\n"
  )
  text += markdown_table(_HEADER, table) + f"\n{_findings(groups)}\n\n![Accuracy against bytes]({PICTURE})\n"
  _draw(os.path.join(workdir, PICTURE), groups)
  return reporting.write_report(workdir, text, [PICTURE])


def _findings(groups):
  accuracies = {name: _all(found, "accuracy") for name, found in groups.items()}
  pairs = [(f"{scheme}, distilled", f"{scheme}, labels") for scheme in ("float", "w8a8", "w4a8")]
  pairs += [("w8a8, distilled", "PTQ int8, distilled"), ("w4a8, distilled", "w8a8, distilled")]
  return " ".join(compare(f'"{one}"', accuracies[one], f'"{other}"', accuracies[other]) for one, other in pairs)


def _all(rows, field):
  return [row[field] for row in rows]


def _mean(rows, field):
  return float(np.mean(_all(rows, field)))


def _draw(path, groups):
  """Draws accuracy over the size of a file, with stds over seeds; distilled students are filled."""
  figure, axes = new_figure(8, 4.2)
  for name, rows in groups.items():
    mean, std = mean_and_std(_all(rows, "accuracy"), 100)
    options = {} if name.endswith("distilled") or name == TEACHER else {"markerfacecolor": "none"}
    marker = "s" if name in PTQ else "o"
    axes.errorbar(
      _mean(rows, "bytes") / 1000, mean, std, marker=marker, capsize=3, linestyle="none", label=f"{name}: {mean:.1f} %",
      **options,
    )  # fmt: skip
  axes.set_xscale("log")
  axes.set_xticks([200, 500, 1000, 2000, 5000, 10000], minor=False)
  axes.xaxis.set_major_formatter("{x:,.0f}")
  axes.xaxis.set_minor_formatter("")
  axes.set_xlabel("bytes of the file, thousands")
  axes.set_ylabel("test accuracy, %")
  axes.set_title("Traffic signs: files of a teacher and of students", fontsize=10)
  axes.grid(alpha=0.3, which="both")
  axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
  save_figure(figure, path)
