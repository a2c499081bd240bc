"""Markdown tables and reports."""

import os
from collections.abc import Mapping, Sequence

from tfkd.reporting.statistics import format_mean_std
from tfkd.storage.files import write_text

_PERCENT = ("accuracy", "agreement", "tflite_accuracy")


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
  """Formats a Markdown table whose first column is aligned to the left and all others to the right.

  Args:
    header: titles of the columns.
    rows: cells as strings, as many per row as there are titles.
  """
  lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
  return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def table(
  rows: Sequence[Mapping],
  by: Sequence[str] = ("role", "method", "scheme"),
  columns: Sequence[str] = ("accuracy", "agreement", "loss"),
) -> str:
  """Formats a Markdown table of result rows with the mean ± std of each group.

  Rows whose fields `by` are equal form a group, as the seeds of one student do.

  Args:
    rows: of `tfkd.sweeps.Results`, or other dicts.
    by: names of the fields that separate groups: of the row, or of its dict "choices". A group without such a field
      has a dash.
    columns: names of numeric fields. Accuracies and agreement, shares in [0, 1], are shown in percent. A group without
      such a field has a dash.

  Returns:
    The table, in the order in which the groups first occur, with the number of runs in its last column.
  """
  groups: dict[tuple[str, ...], list[Mapping]] = {}
  for row in rows:
    groups.setdefault(tuple(_text(row, name) for name in by), []).append(row)
  cells = []
  for key, members in groups.items():
    line = list(key)
    for column in columns:
      values = [row[column] for row in members if row.get(column) is not None]
      line.append(format_mean_std(values, 100) if column in _PERCENT else format_mean_std(values, digits=4))
    cells.append([*line, str(len(members))])
  titles = [f"{column}, %" if column in _PERCENT else column for column in columns]
  return markdown_table([*by, *titles, "runs"], cells)


def _text(row: Mapping, name: str) -> str:
  value = row.get(name, row.get("choices", {}).get(name))
  if value is None:
    return "–"
  return f"{value:g}" if isinstance(value, float) else str(value)


def write_report(workdir: str | os.PathLike, text: str, pictures: Sequence[str] = ()) -> str:
  """Writes `report.md` into a work directory.

  Args:
    workdir: the directory, which holds the pictures already.
    text: the report.
    pictures: names of the picture files that the report shows.

  Returns:
    The text, followed by the paths of all files, for printing.
  """
  write_text(os.path.join(workdir, "report.md"), text)
  return text + "".join(f"\nWrote {os.path.join(workdir, name)}" for name in ["report.md", *pictures])
