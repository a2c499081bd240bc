"""`report.md`: a table of all rows for each library, the failures, and how many networks reach the goal."""

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.networks.architectures import LIBRARIES, MODES, NETWORKS
from experiments.networks.rows import MOST_STEPS, PTQ, Key, key, reaches_goal
from tfkd import reporting
from tfkd.reporting import markdown_table

Rows = Mapping[Key, Mapping[str, Any]]
NONE = "–"
_HEADER = [
  "network", "mode", "scheme", "quantizes", "integers only", "bytes", "steps", "mean", "control", "agreement, %",
  "`quantize`, s", "export, s",
]  # fmt: skip
_POOR_HEADER = ["file", "reason", "PTQ: integers only", "bytes", "steps from float", "mean", "agreement, %"]


def write_report(workdir: str, rows: Sequence[Mapping[str, Any]]) -> str:
  """Writes `report.md` into the work directory.

  Args:
    workdir: where to write.
    rows: of `experiments.networks.rows`.

  Returns:
    The text, followed by the path of the file.
  """
  found = {key(row): row for row in rows}
  text = "# Networks of keras.applications\n"
  for library in LIBRARIES:
    chosen = {k: found[k] for k in _in_order(found) if k.library == library}
    if chosen:
      text += f"\n## {library}\n\n{_counts(chosen)}\n{_table(chosen)}{_poor_table(chosen)}"
  return reporting.write_report(workdir, text)


def _in_order(found: Rows) -> list[Key]:
  names = list(NETWORKS)
  return sorted(found, key=lambda k: (names.index(k.network), MODES.index(k.mode), k.scheme == PTQ, -ord(k.scheme[1])))


def _counts(chosen: Rows) -> str:
  """Returns sentences that count the networks with good files, for each mode and scheme."""
  text = ""
  for mode, scheme in dict.fromkeys((k.mode, k.scheme) for k in chosen if k.scheme != PTQ):
    of_them = {k.network: reaches_goal(row) for k, row in chosen.items() if (k.mode, k.scheme) == (mode, scheme)}
    integer = sum(bool(row.get("is_integer")) for k, row in chosen.items() if (k.mode, k.scheme) == (mode, scheme))
    missed = ", ".join(name for name, is_good in of_them.items() if not is_good)
    text += (
      f"- {mode}, {scheme}: {integer} of {len(of_them)} networks have files of integers only; {sum(of_them.values())} "
      f"of these differ from their Keras models by at most {MOST_STEPS} steps{f' (not {missed})' if missed else ''}.\n"
    )
  return text


def _table(chosen: Rows) -> str:
  lines = []
  for (_, network, mode, scheme), row in chosen.items():
    if scheme != PTQ:
      is_measured = "worst_steps" in row
      lines.append([
        network, mode, scheme,
        "yes" if "quantize_seconds" in row else "no",
        _yes(row.get("is_integer")),
        *(_measured(row) if is_measured else [NONE] * 3),
        f"{row['control']:.0f}" if row.get("control") is not None else NONE,
        f"{100 * row['agreement']:.0f}" if is_measured else NONE,
        *(f"{row[name]:.0f}" if name in row else NONE for name in ("quantize_seconds", "export_seconds")),
      ])  # fmt: skip
  return markdown_table(_HEADER, lines)


def _poor_table(chosen: Rows) -> str:
  """Returns a table of the files that miss the goal, with those of post-training quantization."""
  lines = []
  for one, row in chosen.items():
    if one.scheme == PTQ or reaches_goal(row):
      continue
    after = chosen.get(one._replace(scheme=PTQ), {})
    is_measured = "worst_steps" in after
    lines.append([
      " ".join(one[1:]),
      _reason(row),
      _yes(after.get("is_integer")) if "error" not in after else _reason(after),
      *(_measured(after) if is_measured else [NONE] * 3),
      f"{100 * after['agreement']:.0f}" if is_measured else NONE,
    ])  # fmt: skip
  if not lines:
    return ""
  return f"\nThe other files, and post-training quantization:\n\n{markdown_table(_POOR_HEADER, lines)}"


def _measured(row: Mapping[str, Any]) -> list[str]:
  if row["worst_steps"] is None:
    return [f"{row['bytes']:,}", NONE, NONE]
  return [f"{row['bytes']:,}", f"{row['worst_steps']:.0f}", f"{row['mean_steps']:.2f}"]


def _reason(row: Mapping[str, Any]) -> str:
  if "error" in row:
    return f"{row['stage']}: {row['error']}".replace("|", "\\|").replace("\n", " ")[:300]
  return f"{row['worst_steps']:.0f} steps" if row["is_integer"] else "not integers only"


def _yes(value: bool | None) -> str:
  return NONE if value is None else "yes" if value else "no"
