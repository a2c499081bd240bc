"""Figures of accuracies. matplotlib is imported when the first figure is drawn."""

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from absl import logging

from tfkd.reporting.statistics import mean_and_std
from tfkd.storage.files import atomic_path

if TYPE_CHECKING:
  from matplotlib.axes import Axes
  from matplotlib.figure import Figure


def accuracy_by_method(
  path: str | os.PathLike, groups: Mapping[str, Sequence[float]], baseline: str, title: str
) -> None:
  """Draws the mean accuracy of each method with its std over seeds, the best at the top.

  Args:
    path: `.png` file to write.
    groups: from method to accuracies in [0, 1], one per seed.
    baseline: method whose mean and std are drawn as a vertical band.
    title: text above the figure.
  """
  ordered = sorted(groups, key=lambda method: float(np.mean(groups[method])))
  figure, axes = new_figure(8, 1.2 + 0.24 * len(ordered))
  mean, std = mean_and_std(groups[baseline], 100)
  axes.axvspan(mean - std, mean + std, color="0.85", label=f"{baseline}: {mean:.1f} ± {std:.1f} %")
  axes.axvline(mean, color="0.35", linewidth=1.2)
  for row, method in enumerate(ordered):
    mean, std = mean_and_std(groups[method], 100)
    color = "0.35" if method == baseline else "tab:blue"
    axes.errorbar(mean, row, xerr=std, marker="o", capsize=3, color=color, linewidth=1.4)
  axes.set_yticks(range(len(ordered)), ordered, fontsize=8)
  axes.set_ylim(-0.7, len(ordered) - 0.3)
  axes.set_xlabel("test accuracy, %")
  axes.set_title(title, fontsize=10)
  axes.grid(axis="x", alpha=0.3)
  axes.legend(fontsize=8, loc="lower right")
  save_figure(figure, path)


def training_curves(
  path: str | os.PathLike, histories: Mapping[str, Sequence[Mapping[str, Sequence[float]]]], title: str
) -> None:
  """Draws accuracy over epochs: test accuracy solid with a band of one std over seeds, training accuracy dashed.

  Args:
    path: `.png` file to write.
    histories: from label to Keras histories, one per seed, each with the lists "accuracy" and "val_accuracy" of values
      in [0, 1].
    title: text above the figure.
  """
  figure, axes = new_figure(8, 4.8)
  for number, (label, seeds) in enumerate(histories.items()):
    color = f"C{number}"
    epochs, means, stds = _per_epoch(seeds, "val_accuracy")
    axes.plot(epochs, means, "-", color=color, linewidth=1.6, label=f"{label}: {means[-1]:.1f} %")
    axes.fill_between(epochs, means - stds, means + stds, color=color, alpha=0.15)
    epochs, means, _ = _per_epoch(seeds, "accuracy")
    axes.plot(epochs, means, "--", color=color, linewidth=0.9)
  axes.set_xlabel("epoch")
  axes.set_ylabel("accuracy, %: test solid, training dashed")
  axes.set_title(title, fontsize=10)
  axes.locator_params(axis="x", integer=True)
  axes.grid(alpha=0.3)
  axes.legend(fontsize=8, loc="lower right")
  save_figure(figure, path)


def _per_epoch(histories: Sequence[Mapping[str, Sequence[float]]], metric: str) -> tuple[range, np.ndarray, np.ndarray]:
  per_epoch = zip(*(history[metric] for history in histories), strict=True)
  means, stds = np.array([mean_and_std(values, 100) for values in per_epoch]).T
  return range(1, len(means) + 1), means, stds


def new_figure(width: float, height: float) -> "tuple[Figure, Axes]":
  """Makes a figure with one pair of axes, without a display or pyplot's global state.

  Args:
    width, height: in inches.
  """
  from matplotlib.figure import Figure

  figure = Figure(figsize=(width, height), layout="constrained")
  return figure, figure.add_subplot()


def save_figure(figure: "Figure", path: str | os.PathLike) -> None:
  """Writes a figure as `.png`; a failed write leaves nothing under its name."""
  with atomic_path(path) as temporary:
    figure.savefig(temporary, dpi=130)
  logging.info("wrote %s", os.path.abspath(path))
