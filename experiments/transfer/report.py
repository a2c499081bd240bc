"""`report.md` and the picture of the table of files."""

import os
from collections.abc import Sequence

from experiments.file_report import PICTURE, comparisons, draw_accuracy_against_bytes, mean, values
from tfkd import reporting
from tfkd.reporting import format_mean_std, markdown_table

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
  "w2a2-lsq, labels": ("w2a2-lsq", False),
  "w2a2-lsq, distilled": ("w2a2-lsq", True),
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
  groups = {name: found for name in FILES if (found := [row for row in rows if row["variant"] == name])}
  seeds = sorted({row["seed"] for row in rows})
  size = mean(groups["float, labels"], "bytes")
  table = [
    [
      name,
      format_mean_std(values(found, "accuracy"), 100),
      f"{found[0]['parameters']:,}",
      f"{mean(found, 'bytes'):,.0f}",
      f"{mean(found, 'bytes') / size:.3f}",
      f"{100 * min(values(found, 'agreement')):.2f}",
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
  title = "Traffic signs: files of a teacher and of students"
  draw_accuracy_against_bytes(os.path.join(workdir, PICTURE), groups, title, _style, 4.2)
  return reporting.write_report(workdir, text, [PICTURE])


def _findings(groups):
  pairs = [(f"{scheme}, distilled", f"{scheme}, labels") for scheme in ("float", "w8a8", "w4a8", "w2a2-lsq")]
  pairs += [("w8a8, distilled", "PTQ int8, distilled"), ("w4a8, distilled", "w8a8, distilled")]
  return comparisons(groups, pairs)


def _style(name):
  """Returns a square for PTQ and a circle for the others; distilled students are filled."""
  is_filled = name.endswith("distilled") or name == TEACHER
  return {"marker": "s" if name in PTQ else "o"} | ({} if is_filled else {"markerfacecolor": "none"})
