"""`report.md` and the picture of the table of files."""

import os
from collections.abc import Mapping, Sequence

import numpy as np

from experiments.file_report import PICTURE, comparisons, draw_accuracy_against_bytes, mean, values
from experiments.mlperf_tiny import reference
from experiments.mlperf_tiny.variants import LABELS, SOFT_TARGETS, Variant
from tfkd import reporting
from tfkd.reporting import format_mean_std, markdown_table
from tfkd.sweeps import FLOAT

TEACHER = "teacher"
_HEADER = ["file", "accuracy", "parameters", "bytes", "median, ms", "of float", "agreement"]


def write_report(workdir: str, teacher: dict, rows: Sequence[dict], variants: Sequence[Variant]) -> str:
  """Writes `report.md` and the picture into the work directory.

  Args:
    workdir: where to write.
    teacher: the teacher's row of the results.
    rows: of all files, one for each variant and seed.
    variants: files of students, in the order of the table.

  Returns:
    The report's text, followed by the paths of the files.
  """
  names = [TEACHER, *(variant.name for variant in variants), *reference.FILES]
  groups = {name: found for name in names if (found := [row for row in rows if row["variant"] == name])}
  seeds = sorted({row["seed"] for row in rows})
  text = (
    f"# MLPerf Tiny: image classification on {teacher['dataset']}\n\n"
    f"Accuracy of the files in percent on all {teacher['test_images']:,} test images; mean ± standard deviation over "
    f"seeds ({', '.join(map(str, seeds))}); one teacher. Time is of one image on one thread, measured in turns with "
    f'the file "{FLOAT}, {LABELS}" and also given relative to it. Agreement: the smallest share, in percent, of images '
    "for which a file and its Keras model predict the same class.\n\n"
  )
  ours = {name: _row(found) for name, found in groups.items() if name not in reference.FILES}
  text += markdown_table(_HEADER, [[name, *row] for name, row in ours.items()])
  text += f"\n{_findings(groups, variants)}\n"
  published = {name: groups[name] for name in reference.FILES if name in groups}
  if published:
    text += (
      "\nMLPerf Tiny's own files on the same images. They were trained on all photographs, the test images among them, "
      "and never saw JPEG copies.\n\n"
      + markdown_table(_HEADER, [[name, *_row(found)] for name, found in published.items()])
    )
  text += f"\n![Accuracy against bytes]({PICTURE})\n"
  title = f"MLPerf Tiny's ResNet-8 on {teacher['dataset']}"
  # The teacher's network learned the test images before.
  drawn = {name: groups[name] for name in ours if name != TEACHER}
  kinds = list(dict.fromkeys(name.partition(", ")[0] for name in drawn))
  draw_accuracy_against_bytes(
    os.path.join(workdir, PICTURE), drawn, title, lambda name: _style(name, kinds.index(name.partition(", ")[0])), 4.2
  )
  return reporting.write_report(workdir, text, [PICTURE])


def _row(rows: Sequence[dict]) -> list[str]:
  return [
    format_mean_std(values(rows, "accuracy"), 100),
    f"{rows[0]['parameters']:,}" if "parameters" in rows[0] else "",
    f"{mean(rows, 'bytes'):,.0f}",
    f"{np.median(values(rows, 'median_ms')):.3f}",
    f"{np.median(values(rows, 'ratio')):.2f}",
    f"{100 * min(values(rows, 'agreement')):.2f}" if "agreement" in rows[0] else "",
  ]


def _findings(groups: Mapping[str, Sequence[dict]], variants: Sequence[Variant]) -> str:
  """Compares the files of each scheme with each other, and with those of labels in float."""
  baseline = f"{FLOAT}, {LABELS}"
  schemes = list(dict.fromkeys(variant.scheme for variant in variants))
  methods = dict.fromkeys(variant.method for variant in variants if variant.method not in (LABELS, SOFT_TARGETS))
  pairs = [(f"{scheme}, {SOFT_TARGETS}", f"{scheme}, {LABELS}") for scheme in schemes]
  pairs += [(f"{scheme}, {SOFT_TARGETS}", baseline) for scheme in schemes if scheme != FLOAT]
  pairs += [(f"w8a8, {method}", f"w8a8, {SOFT_TARGETS}") for method in methods]
  return comparisons(groups, pairs)


def _style(name: str, number: int) -> dict[str, str]:
  """Returns a color for each kind of file, and a square for PTQ and a circle for the others; labels are hollow."""
  style = {"marker": "s" if name.startswith("PTQ") else "o", "color": f"C{number}"}
  return style | ({"markerfacecolor": "none"} if name.endswith(LABELS) else {})
