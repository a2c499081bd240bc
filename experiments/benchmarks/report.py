"""`report.md` and the picture of the benchmark."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.benchmarks import whole_way
from experiments.benchmarks.limits import Limit
from experiments.benchmarks.variants import KERAS, KERAS_FEATURE, LABELS, TEACHER, TORCH
from tfkd import reporting
from tfkd.reporting import markdown_table

PICTURE = "steps.png"


def write_report(
  workdir: str,
  title: str,
  tables: Mapping[str, Sequence[Mapping[str, Any]]],
  ways: Mapping[str, Mapping[str, Any]],
  limits: Sequence[Limit],
) -> str:
  """Writes the report into the work directory.

  Args:
    workdir: where to write.
    title: heading of the report.
    tables: rows of `limits.step_row` by pair of networks.
    ways: results of `whole_way.measure` by pair of networks.
    limits: measured numbers with their limits.

  Returns:
    The report's text, followed by the paths of the files.
  """
  text = f"# {title}\n"
  for pair, rows in tables.items():
    header = ["step", "student", "wall, ms", "CPU, ms", "wall / labels + teacher forward", "peak MiB"]
    text += f"\n## Steps: {pair}\n\n{markdown_table(header, [_cells(row) for row in rows])}"
  for pair, measured in ways.items():
    text += f"\n## Whole way: {pair}\n\n{whole_way.describe(measured)}"
  if limits:
    lines = [[m.name, f"{m.found:.3f}", m.limit, "yes" if m.holds else "**no**"] for m in limits]
    text += f"\n## Limits\n\n{markdown_table(['quantity', 'measured', 'limit', 'holds'], lines)}"
  pictures = []
  if tables:
    text += f"\n![Milliseconds per step]({PICTURE})\n"
    _bars(os.path.join(workdir, PICTURE), tables)
    pictures.append(PICTURE)
  return reporting.write_report(workdir, text, pictures)


def _cells(row: Mapping[str, Any]) -> list[str]:
  mib = f"{row['mib']:,.0f}" if row["mib"] else "–"
  times = f"{1e3 * row['wall']:.1f}", f"{1e3 * row['cpu']:.1f}", f"{row['ratio']:.2f}"
  return [row["kind"], row["scheme"], *times, mib]


def _bars(path: str, tables: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
  from matplotlib.figure import Figure

  figure = Figure(figsize=(6.4 * len(tables), 5.2), layout="constrained")
  for axes, (pair, rows) in zip(figure.subplots(1, len(tables), squeeze=False)[0], tables.items(), strict=True):
    labels = [row["kind"] + ("" if row["scheme"] in ("float", "–") else f", {row['scheme']}") for row in rows]
    axes.barh(range(len(rows)), [1e3 * row["wall"] for row in rows], color=[_color(row["kind"]) for row in rows])
    axes.set_yticks(range(len(rows)), labels, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("median ms per step")
    axes.set_title(pair, fontsize=10)
    axes.grid(axis="x", alpha=0.3)
  reporting.save_figure(figure, path)


def _color(kind: str) -> str:
  if kind in (KERAS, KERAS_FEATURE, TORCH):
    return "tab:orange"
  return "0.6" if kind in (LABELS, TEACHER) else "tab:blue"
