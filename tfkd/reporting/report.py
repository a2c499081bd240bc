"""Tables and pictures from rows of results."""

import math
import os

import numpy as np
from absl import logging

from tfkd.storage.files import atomic_path


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


def finding(name, one, other_name, other):
  """A sentence of what two lists of accuracies support: their difference against its deviation.

  Args:
    name, other_name: the two, as in "the response-based student".
    one, other: lists of accuracies in [0, 1], one for each seed.
  """
  difference, deviation = difference_of_means(one, other)
  direction = "above" if difference >= 0 else "below"
  sentence = f"{name[0].upper()}{name[1:]} ends {abs(100 * difference):.2f} points {direction} {other_name}"
  if deviation is None:
    return f"{sentence}; one seed alone does not say how much of that is chance."
  of_such = f"the standard deviation of such a difference ({100 * deviation:.2f})"
  if abs(difference) <= deviation:
    return f"{sentence}, no more than {of_such}: no finding."
  times = f"{abs(difference) / deviation:.1f} times" if deviation else "beyond"
  return f"{sentence}, {times} {of_such}."


def write_text(path, text):
  """Writes a text file whole or not at all."""
  with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
    file.write(text)
  logging.info("wrote %s", path)


def write_report(workdir, text, pictures):
  """Writes `report.md` into a workdir that has its pictures already.

  Returns:
    The text, with the paths of all files at its end.
  """
  write_text(os.path.join(workdir, "report.md"), text)
  return text + "".join(f"\nWrote {os.path.join(workdir, place)}" for place in ["report.md", *pictures])


def accuracy_against_temperature(path, lines, levels, title):
  """Draws accuracy over temperature with deviations over seeds.

  Args:
    path: `.png` to write.
    lines: dict from label to dict from temperature to list of accuracies in [0, 1].
    levels: dict from label to list of accuracies: horizontal lines for what has no temperature.
    title: above the picture.
  """
  figure, axes = _figure(8, 4.8)
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
  save_figure(figure, path)


def accuracy_by_method(path, groups, baseline, title):
  """Draws one accuracy with its deviation over seeds for each method, the best on top.

  Args:
    path: `.png` to write.
    groups: dict from method to list of accuracies in [0, 1].
    baseline: the method whose mean and deviation are shown as a band.
    title: above the picture.
  """
  ordered = sorted(groups, key=lambda method: np.mean(groups[method]))
  figure, axes = _figure(8, 1.2 + 0.24 * len(ordered))
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
  save_figure(figure, path)


def accuracy_against_bytes(path, groups, title):
  """Draws accuracy over the size of a file, with deviations over seeds; a line joins those that none beats in both.

  Args:
    path: `.png` to write.
    groups: dict from label to (bytes, list of accuracies in [0, 1]).
    title: above the picture.
  """
  figure, axes = _figure(8, 4.8)
  points = {label: (size / 1000, *_mean_and_deviation(values)) for label, (size, values) in groups.items()}
  best = []
  for size, mean, _ in sorted(points.values(), key=lambda point: (point[0], -point[1])):
    if not best or mean > best[-1][1]:
      best.append((size, mean))
  axes.step(*zip(*best, strict=True), where="post", color="0.7", linewidth=1.2, zorder=0)
  for number, (label, (size, mean, deviation)) in enumerate(points.items()):
    marker = "o" if number < 10 else "s"
    axes.errorbar(size, mean, deviation, marker=marker, capsize=3, linestyle="none", label=f"{label}: {mean:.1f} %")
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


def heat_map(path, cells, x_label, y_label, title):
  """Draws mean accuracies over two choices; combinations that were not run stay empty.

  Args:
    path: `.png` to write.
    cells: dict from (x, y), numbers, to list of accuracies in [0, 1].
    x_label, y_label: what the numbers are.
    title: above the picture.
  """
  columns, rows = (sorted({key[axis] for key in cells}) for axis in (0, 1))
  means = np.full((len(rows), len(columns)), np.nan)
  for (x, y), values in cells.items():
    means[rows.index(y), columns.index(x)] = 100 * np.mean(values)
  figure, axes = _figure(2.5 + 0.9 * len(columns), 1.6 + 0.6 * len(rows))
  image = axes.imshow(means, cmap="viridis", aspect="auto", origin="lower")
  middle = (np.nanmin(means) + np.nanmax(means)) / 2
  for row, column in np.argwhere(np.isfinite(means)):
    value = means[row, column]
    axes.text(column, row, f"{value:.1f}", ha="center", va="center", color="white" if value < middle else "black")
  axes.set_xticks(range(len(columns)), [f"{x:g}" for x in columns])
  axes.set_yticks(range(len(rows)), [f"{y:g}" for y in rows])
  axes.set_xlabel(x_label)
  axes.set_ylabel(y_label)
  axes.set_title(title, fontsize=10)
  figure.colorbar(image, label="test accuracy, %")
  save_figure(figure, path)


def training_curves(path, histories, title):
  """Draws accuracy over epochs: on the test set solid, on the training set dashed; a band for the seeds' deviation.

  Args:
    path: `.png` to write.
    histories: dict from label to list of histories, one for each seed, each a dict with lists "accuracy" and
      "val_accuracy" in [0, 1].
    title: above the picture.
  """
  figure, axes = _figure(8, 4.8)
  for number, (label, seeds) in enumerate(histories.items()):
    color = f"C{number}"
    for metric, style in (("val_accuracy", "-"), ("accuracy", "--")):
      per_epoch = zip(*(history[metric] for history in seeds), strict=True)
      means, deviations = np.array([_mean_and_deviation(values) for values in per_epoch]).T
      epochs = range(1, len(means) + 1)
      axes.plot(epochs, means, style, color=color, linewidth=1.6 if style == "-" else 0.9,
                label=f"{label}: {means[-1]:.1f} %" if style == "-" else None)  # fmt: skip
      if style == "-":
        axes.fill_between(epochs, means - deviations, means + deviations, color=color, alpha=0.15)
  axes.set_xlabel("epoch")
  axes.set_ylabel("accuracy, %: test solid, training dashed")
  axes.set_title(title, fontsize=10)
  axes.xaxis.get_major_locator().set_params(integer=True)
  axes.grid(alpha=0.3)
  axes.legend(fontsize=8, loc="lower right")
  save_figure(figure, path)


def _figure(width, height):
  """A figure and its axes, in inches."""
  from matplotlib.figure import Figure  # Without pyplot: no display, no global state.

  figure = Figure(figsize=(width, height), layout="constrained")
  return figure, figure.add_subplot()


def save_figure(figure, path):
  """Writes a matplotlib figure as `.png`."""
  with atomic_path(path) as temporary:
    figure.savefig(temporary, dpi=130)
  logging.info("wrote %s", os.path.abspath(path))


def _mean_and_deviation(accuracies):
  """Percent; one seed alone has deviation 0."""
  return 100 * np.mean(accuracies), 100 * np.std(accuracies, ddof=1) if len(accuracies) > 1 else 0.0
