"""Tables and pictures from rows of results."""

import os

import numpy as np
from absl import logging

from tfkd.files import atomic_path


def mean_and_deviation(values, scale=1.0, digits=2):
  """Formats values as "mean ± standard deviation (n)"; one value alone has no deviation, none is a dash.

  Args:
    values: list of float, one for each seed.
    scale: factor, 100 for percent.
    digits: decimals.
  """
  if not values:
    return "–"
  values = np.asarray(values, np.float64) * scale
  mean = f"{values.mean():.{digits}f}"
  return mean if len(values) == 1 else f"{mean} ± {values.std(ddof=1):.{digits}f}"


def markdown_table(header, rows):
  """A Markdown table; cells are strings, numbers to the right."""
  lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
  return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def write_text(path, text):
  """Writes a text file whole or not at all."""
  with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
    file.write(text)
  logging.info("wrote %s", path)


def accuracy_against_temperature(path, lines, levels, title):
  """Draws accuracy over temperature with deviations over seeds.

  Args:
    path: `.png` to write.
    lines: dict from label to dict from temperature to list of accuracies in [0, 1].
    levels: dict from label to list of accuracies: horizontal lines for what has no temperature.
    title: above the picture.
  """
  from matplotlib.figure import Figure  # Without pyplot: no display, no global state.

  figure = Figure(figsize=(8, 4.8), layout="constrained")
  axes = figure.add_subplot()
  for (label, values), style in zip(levels.items(), ("-", "--", ":", "-."), strict=False):
    if values:
      mean = 100 * np.mean(values)
      axes.axhline(mean, color="0.35", linestyle=style, linewidth=1.2, label=f"{label}: {mean:.1f} %")
  temperatures = sorted({t for points in lines.values() for t in points})
  for offset, (label, points) in enumerate(lines.items()):
    if not points:
      continue
    x = np.array([temperatures.index(t) for t in sorted(points)]) + 0.06 * (offset - (len(lines) - 1) / 2)
    means, deviations = zip(*(_mean_and_deviation(points[t]) for t in sorted(points)), strict=True)
    axes.errorbar(x, means, deviations, marker="o", capsize=3, linewidth=1.6, label=label)
  axes.set_xticks(range(len(temperatures)), [f"{t:g}" for t in temperatures])
  axes.set_xlabel("temperature")
  axes.set_ylabel("test accuracy, %")
  axes.set_title(title, fontsize=10)
  axes.grid(axis="y", alpha=0.3)
  axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
  with atomic_path(path) as temporary:
    figure.savefig(temporary, dpi=130)
  logging.info("wrote %s", os.path.abspath(path))


def accuracy_by_method(path, groups, baseline, title):
  """Draws one accuracy with its deviation over seeds for each method, the best on top.

  Args:
    path: `.png` to write.
    groups: dict from method to list of accuracies in [0, 1].
    baseline: the method whose mean and deviation are shown as a band.
    title: above the picture.
  """
  from matplotlib.figure import Figure  # Without pyplot: no display, no global state.

  ordered = sorted(groups, key=lambda method: np.mean(groups[method]))
  figure = Figure(figsize=(8, 1.2 + 0.24 * len(ordered)), layout="constrained")
  axes = figure.add_subplot()
  mean, deviation = _mean_and_deviation(groups[baseline])
  axes.axvspan(mean - deviation, mean + deviation, color="0.85", label=f"{baseline}: {mean:.1f} ± {deviation:.1f} %")
  axes.axvline(mean, color="0.35", linewidth=1.2)
  for row, method in enumerate(ordered):
    mean, deviation = _mean_and_deviation(groups[method])
    color = "0.35" if method == baseline else "tab:blue"
    axes.errorbar(mean, row, xerr=deviation, marker="o", capsize=3, color=color, linewidth=1.4)
  axes.set_yticks(range(len(ordered)), ordered, fontsize=8)
  axes.set_ylim(-0.7, len(ordered) - 0.3)
  axes.set_xlabel("test accuracy, %")
  axes.set_title(title, fontsize=10)
  axes.grid(axis="x", alpha=0.3)
  axes.legend(fontsize=8, loc="lower right")
  with atomic_path(path) as temporary:
    figure.savefig(temporary, dpi=130)
  logging.info("wrote %s", os.path.abspath(path))


def _mean_and_deviation(accuracies):
  """Percent; one seed alone has deviation 0."""
  return 100 * np.mean(accuracies), 100 * np.std(accuracies, ddof=1) if len(accuracies) > 1 else 0.0
