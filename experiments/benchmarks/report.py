"""`report.md` and the picture of the benchmark."""

import os

from experiments.benchmarks.variants import KERAS, KERAS_FEATURE, LABELS, TEACHER, TORCH
from tfkd import reporting
from tfkd.reporting import markdown_table

PICTURE = "steps.png"


def write_report(workdir, title, tables, promises):
  """Writes the report into the workdir.

  Args:
    workdir: where to.
    title: what was measured, and on what.
    tables: dict from pair to list of dicts with what, scheme, wall and cpu (median seconds), ratio, mib.
    promises: list of (what, found, limit, whether it is kept).

  Returns:
    The report's text, with the paths of the files at its end.
  """
  text = f"# {title}\n"
  for pair, rows in tables.items():
    header = ["step", "student", "wall, ms", "CPU, ms", "wall / labels + teacher forward", "peak MiB"]
    lines = [
      [row["what"], row["scheme"], f"{1e3 * row['wall']:.1f}", f"{1e3 * row['cpu']:.1f}", f"{row['ratio']:.2f}",
       f"{row['mib']:,.0f}" if row["mib"] else "–"] for row in rows
    ]  # fmt: skip
    text += f"\n## {pair}\n\n{markdown_table(header, lines)}"
  kept = [[what, f"{found:.3f}", limit, "yes" if is_kept else "**no**"] for what, found, limit, is_kept in promises]
  text += f"\n## Promises\n\n{markdown_table(['what', 'found', 'promised', 'kept'], kept)}"
  pictures = []
  if tables:
    text += f"\n![Milliseconds a step]({PICTURE})\n"
    _bars(os.path.join(workdir, PICTURE), tables)
    pictures.append(PICTURE)
  return reporting.write_report(workdir, text, pictures)


def _bars(path, tables):
  from matplotlib.figure import Figure

  figure = Figure(figsize=(6.4 * len(tables), 5.2), layout="constrained")
  for axes, (pair, rows) in zip(figure.subplots(1, len(tables), squeeze=False)[0], tables.items(), strict=True):
    labels = [row["what"] + ("" if row["scheme"] in ("float", "–") else f", {row['scheme']}") for row in rows]
    axes.barh(range(len(rows)), [1e3 * row["wall"] for row in rows], color=[_color(row["what"]) for row in rows])
    axes.set_yticks(range(len(rows)), labels, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("median ms a step")
    axes.set_title(pair, fontsize=10)
    axes.grid(axis="x", alpha=0.3)
  reporting.save_figure(figure, path)


def _color(what):
  if what in (KERAS, KERAS_FEATURE, TORCH):
    return "tab:orange"
  return "0.6" if what in (LABELS, TEACHER) else "tab:blue"
