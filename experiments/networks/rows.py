"""Rows of the work directory: one for each file that was measured or could not be made."""

import os
from collections.abc import Iterable
from typing import Any, NamedTuple

from experiments.networks.architectures import LIBRARIES
from tfkd.storage.digests import to_checked_json
from tfkd.storage.files import write_text
from tfkd.sweeps import Results

PTQ = "PTQ"
"""Scheme of rows of files that were quantized after the training."""
MOST_STEPS = 4
"""Largest difference of a good file from its model, in steps of the output's grid."""


class Key(NamedTuple):
  """What a row is about."""

  library: str
  network: str
  mode: str
  scheme: str


def reaches_goal(row: dict[str, Any]) -> bool:
  """Whether a file computes with integers only and differs from its model by few enough steps."""
  return "error" not in row and row["is_integer"] and round(row["worst_steps"]) <= MOST_STEPS


def key(row: dict[str, Any]) -> Key:
  """Returns the key of a row."""
  return Key(*(row[name] for name in Key._fields))


def results(workdir: str, library: str) -> Results:
  """Returns the rows of one library."""
  return Results(_path(workdir, library))


def rows(workdir: str) -> list[dict[str, Any]]:
  """Returns all rows of a work directory."""
  return [row for library in LIBRARIES for row in results(workdir, library).rows()]


def forget(workdir: str, keys: Iterable[Key]) -> None:
  """Removes rows, and those of post-training quantization of the same models."""
  removed = {k for given in keys for k in (given, given._replace(scheme=PTQ))}
  for library in {given.library for given in removed}:
    kept = [row for row in results(workdir, library).rows() if key(row) not in removed]
    write_text(_path(workdir, library), "".join(to_checked_json(row) + "\n" for row in kept))


def _path(workdir: str, library: str) -> str:
  return os.path.join(workdir, f"{library}.jsonl")
