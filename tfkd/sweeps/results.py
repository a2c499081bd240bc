"""The results of a sweep: one line of JSON for each trained model."""

import os
import shutil
from collections.abc import Mapping
from typing import Any

from absl import logging

from tfkd.storage.digests import from_checked_json, to_checked_json
from tfkd.storage.files import atomic_path, write_text


class Results:
  """A `results.jsonl` file, each line of which holds a row and its SHA-256.

  Args:
    path: the file, which is made with the first row.
  """

  def __init__(self, path: str | os.PathLike):
    self._path = os.fspath(path)
    self._reported: set[int] = set()

  def rows(self) -> list[dict[str, Any]]:
    """Returns all rows in the order in which they were added; damaged lines are logged and skipped."""
    return self._read()[0]

  def add(self, row: Mapping[str, Any]) -> None:
    """Adds a row. The file is rewritten and renamed, so that a killed process leaves the earlier or the new one.

    If lines are damaged, a copy of the file is kept as `results.jsonl.damaged`.
    """
    rows, damaged = self._read()
    if damaged:
      with atomic_path(f"{self._path}.damaged") as temporary:
        shutil.copyfile(self._path, temporary)
    write_text(self._path, "".join(to_checked_json(r) + "\n" for r in [*rows, row]))

  def find(self, **values: Any) -> list[dict[str, Any]]:
    """Returns the rows whose fields have all these values."""
    return [row for row in self.rows() if all(row.get(key) == value for key, value in values.items())]

  def _read(self) -> tuple[list[dict[str, Any]], list[int]]:
    """Returns the rows, and the numbers of damaged lines."""
    if not os.path.exists(self._path):
      return [], []
    rows, damaged = [], []
    with open(self._path, "rb") as file:
      for number, line in enumerate(file, 1):
        try:
          rows.append(from_checked_json(line.decode()))
        except ValueError as error:
          damaged.append(number)
          if number not in self._reported:
            logging.warning("%s, line %d is damaged (%s): it is skipped, and its model is trained again", self._path,
                            number, error)  # fmt: skip
            self._reported.add(number)
    return rows, damaged
