"""Means, standard deviations and differences of results over seeds."""

import math
from collections.abc import Sequence

import numpy as np


def mean_and_std(values: Sequence[float], scale: float = 1.0) -> tuple[float, float]:
  """Computes the mean and the sample standard deviation of one result over seeds.

  Args:
    values: one value per seed, at least one.
    scale: factor of both numbers, 100 for percent.

  Returns:
    mean, std. The std of a single value is 0.
  """
  return scale * float(np.mean(values)), scale * float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def format_mean_std(values: Sequence[float], scale: float = 1.0, digits: int = 2) -> str:
  """Formats values as "mean ± std".

  Args:
    values: one value per seed.
    scale: factor, 100 for percent.
    digits: number of decimals.

  Returns:
    "mean ± std" with the sample standard deviation; the value alone if there is one; a dash if there is none.
  """
  if not values:
    return "–"
  mean, std = mean_and_std(list(np.asarray(values, np.float64) * scale))
  return f"{mean:.{digits}f}" if len(values) == 1 else f"{mean:.{digits}f} ± {std:.{digits}f}"


def difference_of_means(one: Sequence[float], other: Sequence[float]) -> tuple[float, float | None]:
  """Computes the difference of two means and the standard deviation of that difference between two single runs.

    difference = mean(one) - mean(other),  std = sqrt(var(one) + var(other))

  Args:
    one, other: one value per seed, at least one each.

  Returns:
    difference, std. The std is None if either list has a single value.
  """
  difference = float(np.mean(one) - np.mean(other))
  if min(len(one), len(other)) < 2:
    return difference, None
  return difference, math.hypot(np.std(one, ddof=1), np.std(other, ddof=1))


def compare(
  name: str,
  one: Sequence[float],
  other_name: str,
  other: Sequence[float],
  *,
  scale: float = 100.0,
  unit: str = "points",
) -> str:
  """Describes the difference of two results in a sentence, and compares it with its standard deviation.

  Args:
    name, other_name: subject and object of the sentence, such as "the response-based student".
    one, other: accuracies in [0, 1], or other results, one per seed.
    scale, unit: factor and unit of the difference; 1 and "nats" for cross-entropies, 1 and "" for numbers without unit.

  Returns:
    A sentence that reports no finding if the difference is at most its standard deviation.
  """
  difference, std = difference_of_means(one, other)
  digits = 2 if scale == 100 else 4
  size = f"{abs(scale * difference):.{digits}f} {unit}".rstrip()
  direction = "above" if difference >= 0 else "below"
  sentence = f"{name[0].upper()}{name[1:]} ends {size} {direction} {other_name}"
  if std is None:
    return f"{sentence}; one seed alone does not show how much of that is chance."
  expected = f"the standard deviation of such a difference ({scale * std:.{digits}f})"
  if abs(difference) <= std:
    return f"{sentence}, no more than {expected}: no finding."
  times = f"{abs(difference) / std:.1f} times" if std else "beyond"
  return f"{sentence}, {times} {expected}."
