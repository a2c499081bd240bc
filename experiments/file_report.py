"""Parts that reports on measured files share."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tfkd.reporting import compare, mean_and_std, new_figure, save_figure

PICTURE = "accuracy_against_bytes.png"
Groups = Mapping[str, Sequence[Mapping[str, Any]]]
"""Rows of all seeds by the name of the file."""


def values(rows: Sequence[Mapping[str, Any]], field: str) -> list:
  """Returns a field of all rows."""
  return [row[field] for row in rows]


def mean(rows: Sequence[Mapping[str, Any]], field: str) -> float:
  """Returns the mean of a field over rows."""
  return float(np.mean(values(rows, field)))


def comparisons(groups: Groups, pairs: Sequence[tuple[str, str]]) -> str:
  """Returns a sentence for each pair of measured files: by how much the first is more accurate than the second."""
  return " ".join(
    compare(f'"{one}"', values(groups[one], "accuracy"), f'"{other}"', values(groups[other], "accuracy"))
    for one, other in pairs
    if one in groups and other in groups
  )


def draw_accuracy_against_bytes(
  path: str,
  groups: Groups,
  title: str,
  style: Callable[[str], Mapping[str, Any]],
  height: float = 4.8,
  has_front: bool = False,
) -> None:
  """Draws accuracy over the size of files, with stds over seeds.

  Args:
    path: `.png` to write.
    groups: all files.
    title: title of the picture.
    style: function of the name of a file that returns options of matplotlib's `errorbar`.
    height: of the picture in inches.
    has_front: whether a line connects the files that no smaller file equals in accuracy.
  """
  figure, axes = new_figure(8, height)
  points = {
    name: (mean(rows, "bytes") / 1000, *mean_and_std(values(rows, "accuracy"), 100)) for name, rows in groups.items()
  }
  if has_front:
    best: list[tuple[float, float]] = []
    for size, accuracy, _ in sorted(points.values(), key=lambda point: (point[0], -point[1])):
      if not best or accuracy > best[-1][1]:
        best.append((size, accuracy))
    axes.step(*zip(*best, strict=True), where="post", color="0.7", linewidth=1.2, zorder=0)
  for name, (size, accuracy, std) in points.items():
    options = {"capsize": 3, "linestyle": "none", "label": f"{name}: {accuracy:.1f} %", **style(name)}
    axes.errorbar(size, accuracy, std, **options)
  axes.set_xscale("log")
  axes.xaxis.get_major_locator().set_params(subs=(1, 2, 5))
  axes.xaxis.set_major_formatter("{x:,g}")
  axes.xaxis.set_minor_formatter("")
  axes.set_xlabel("bytes of the file, thousands")
  axes.set_ylabel("test accuracy, %")
  axes.set_title(title, fontsize=10)
  axes.grid(alpha=0.3, which="both")
  axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
  save_figure(figure, path)
