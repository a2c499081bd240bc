"""`report.md` and the picture of the table of files."""

import os
from collections.abc import Mapping, Sequence

import numpy as np

from experiments.mlperf_tiny import reference
from experiments.mlperf_tiny.variants import LABELS, METHODS, SOFT_TARGETS, VARIANTS
from tfkd import reporting
from tfkd.reporting import compare, format_mean_std, markdown_table, mean_and_std, new_figure, save_figure
from tfkd.sweeps import FLOAT

PICTURE = "accuracy_against_bytes.png"
TEACHER = "teacher"
_HEADER = ["file", "accuracy", "parameters", "bytes", "median, ms", "of float", "agreement"]


def write_report(workdir: str, teacher: dict, rows: Sequence[dict]) -> str:
  """Writes `report.md` and the picture into the work directory.

  Args:
    workdir: where to write.
    teacher: the teacher's row of the results.
    rows: of all files, one for each variant and seed.

  Returns:
    The report's text, followed by the paths of the files.
  """
  names = [TEACHER, *(variant.name for variant in VARIANTS), *reference.FILES]
  groups = {name: found for name in names if (found := [row for row in rows if row["variant"] == name])}
  seeds = sorted({row["seed"] for row in rows})
  text = (
    "# MLPerf Tiny: image classification\n\n"
    f"Accuracy of the files in percent on all {teacher['test_images']:,} test images; mean ± standard deviation over "
    f"seeds ({', '.join(map(str, seeds))}); one teacher. Time is of one image on one thread, measured in turns with "
    f'the file "{FLOAT}, {LABELS}" and also given relative to it. Agreement: the smallest share, in percent, of images '
    "for which a file and its Keras model predict the same class.\n\n"
  )
  ours = {name: _row(found) for name, found in groups.items() if name not in reference.FILES}
  text += markdown_table(_HEADER, [[name, *row] for name, row in ours.items()])
  text += f"\n{_findings(groups)}\n"
  published = {name: groups[name] for name in reference.FILES if name in groups}
  if published:
    text += (
      "\nMLPerf Tiny's own files on the same images. They were trained on all photographs, the test images among them, "
      "and never saw JPEG copies.\n\n"
      + markdown_table(_HEADER, [[name, *_row(found)] for name, found in published.items()])
    )
  text += f"\n![Accuracy against bytes]({PICTURE})\n"
  _draw(os.path.join(workdir, PICTURE), {name: groups[name] for name in ours})
  return reporting.write_report(workdir, text, [PICTURE])


def _row(rows: Sequence[dict]) -> list[str]:
  return [
    format_mean_std(_all(rows, "accuracy"), 100),
    f"{rows[0]['parameters']:,}" if "parameters" in rows[0] else "",
    f"{_mean(rows, 'bytes'):,.0f}",
    f"{np.median(_all(rows, 'median_ms')):.3f}",
    f"{np.median(_all(rows, 'ratio')):.2f}",
    f"{100 * min(_all(rows, 'agreement')):.2f}" if "agreement" in rows[0] else "",
  ]


def _findings(groups: Mapping[str, Sequence[dict]]) -> str:
  """Compares the files of each scheme with each other, and with those of labels in float."""
  baseline = f"{FLOAT}, {LABELS}"
  schemes = list(dict.fromkeys(variant.scheme for variant in VARIANTS))
  pairs = [(f"{scheme}, {SOFT_TARGETS}", f"{scheme}, {LABELS}") for scheme in schemes]
  pairs += [(f"{scheme}, {SOFT_TARGETS}", baseline) for scheme in schemes if scheme != FLOAT]
  pairs += [(f"w8a8, {method}", f"w8a8, {SOFT_TARGETS}") for method in METHODS]
  return " ".join(
    compare(f'"{one}"', _all(groups[one], "accuracy"), f'"{other}"', _all(groups[other], "accuracy"))
    for one, other in pairs
  )


def _all(rows: Sequence[dict], field: str) -> list:
  return [row[field] for row in rows]


def _mean(rows: Sequence[dict], field: str) -> float:
  return float(np.mean(_all(rows, field)))


def _draw(path: str, groups: Mapping[str, Sequence[dict]]) -> None:
  """Draws accuracy over the size of a file, with stds over seeds; files of labels are hollow."""
  figure, axes = new_figure(8, 5)
  for name, rows in groups.items():
    mean, std = mean_and_std(_all(rows, "accuracy"), 100)
    options = {"markerfacecolor": "none"} if name.endswith(LABELS) else {}
    marker = "s" if name.startswith("PTQ") else "o"
    axes.errorbar(
      _mean(rows, "bytes") / 1000, mean, std, marker=marker, capsize=3, linestyle="none", label=f"{name}: {mean:.1f} %",
      **options,
    )  # fmt: skip
  axes.set_xscale("log")
  axes.xaxis.get_major_locator().set_params(subs=(1, 2, 5))
  axes.xaxis.set_major_formatter("{x:g}")
  axes.xaxis.set_minor_formatter("")
  axes.set_xlabel("bytes of the file, thousands")
  axes.set_ylabel("test accuracy, %")
  axes.set_title("MLPerf Tiny's ResNet-8 on JPEG copies of CIFAR-10's photographs", fontsize=10)
  axes.grid(alpha=0.3, which="both")
  axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
  save_figure(figure, path)
