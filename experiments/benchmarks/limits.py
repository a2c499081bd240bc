"""Ratios of measured times and their limits."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from experiments.benchmarks.variants import CACHED, HINTS, LABELS, ONLINE, TEACHER
from tfkd.ops.timing import Times, median_ratio
from tfkd.sweeps import FLOAT


class Limit(NamedTuple):
  """A measured number and its limit."""

  name: str
  found: float
  limit: str
  """For example "<= 1.05"."""
  holds: bool


def at_most(name: str, found: float, limit: float) -> Limit:
  """Returns an upper limit of a measured number."""
  return Limit(name, found, f"<= {limit:.2f}", found <= limit)


def step_row(
  key: tuple[str, str], times: Mapping[tuple[str, str], Times], mib: Mapping[tuple[str, str], float]
) -> dict[str, Any]:
  """Returns the row of a variant in the table of steps.

  Args:
    key: kind of step and scheme of the student.
    times: times of all variants of the pair in the same rounds; empty if they were not measured.
    mib: peak memory of the variants in MiB.

  Returns:
    dict: kind; scheme; mib, or None; wall and cpu (median seconds); ratio, the median over rounds of the time divided
    by labels + teacher forward. The last three are NaN without times.
  """
  kind, scheme = key
  row = {"kind": kind, "scheme": "–" if kind == TEACHER else scheme, "mib": mib.get(key)}
  if not times:
    return row | {"wall": float("nan"), "cpu": float("nan"), "ratio": float("nan")}
  own = times[key]
  return row | {
    "wall": statistics.median(own.wall),
    "cpu": statistics.median(own.cpu),
    "ratio": median_ratio(own.wall, _labels_and_teacher(times, scheme)),
  }


def of_steps(pair: str, times: Mapping[tuple[str, str], Times]) -> list[Limit]:
  """Returns the limits of the steps of a pair of networks: medians over rounds of ratios within a round."""
  limits = []
  for scheme in [scheme for kind, scheme in times if kind == CACHED]:
    labels = times[LABELS, scheme].wall
    for kind, limit in ((ONLINE, 1.05), (HINTS, 1.20)):
      ratio = median_ratio(times[kind, scheme].wall, _labels_and_teacher(times, scheme))
      limits.append(at_most(f"{pair}, {scheme}: {kind} / (labels + teacher forward)", ratio, limit))
    ratio = median_ratio(times[CACHED, scheme].wall, labels)
    limits.append(at_most(f"{pair}, {scheme}: cached / labels", ratio, 1.05))
  for scheme in [scheme for kind, scheme in times if kind == LABELS and scheme != FLOAT]:
    ratio = median_ratio(times[LABELS, scheme].wall, times[LABELS, FLOAT].wall)
    limits.append(at_most(f"{pair}: labels, {scheme} / labels, float", ratio, 1.10 if scheme == "w8a8" else 1.25))
  return limits


def of_sweeps(rounds: Sequence[Mapping[str, Sequence[float]]]) -> list[Limit]:
  """Returns the limits of a sweep over temperatures.

  Args:
    rounds: results of `costs.sweep_seconds`.

  Returns:
    The median over rounds of the ratio of whole sweeps, and the median over all pairs of students of their ratio. The
    second has no cost of tracing, which only the first student of a sweep has.
  """
  totals = {name: [sum(seconds[name]) for seconds in rounds] for name in ("labels", "temperatures")}
  students = {name: [value for seconds in rounds for value in seconds[name]] for name in totals}
  return [
    at_most("five temperatures / five students on labels", _ratio(totals), 1.05),
    at_most("a student of five temperatures / a student on labels", _ratio(students), 1.05),
  ]


def _ratio(seconds: Mapping[str, Sequence[float]]) -> float:
  return median_ratio(seconds["temperatures"], seconds["labels"])


def _labels_and_teacher(times: Mapping[tuple[str, str], Times], scheme: str) -> list[float]:
  return [a + b for a, b in zip(times[LABELS, scheme].wall, times[TEACHER, FLOAT].wall, strict=True)]
