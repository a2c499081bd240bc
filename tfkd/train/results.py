"""The rows of a sweep: one JSON line for each trained model."""

import json
import os

from tfkd.files import atomic_path


class Results:
  """A `results.jsonl` file.

  Args:
    path: the file; made with the first row.
  """

  def __init__(self, path):
    self._path = path

  def rows(self):
    """Returns all rows as dicts, in the order in which they were added.

    Raises:
      ValueError: a line is not JSON.
    """
    if not os.path.exists(self._path):
      return []
    rows = []
    with open(self._path, encoding="utf-8") as file:
      for number, line in enumerate(file, 1):
        try:
          rows.append(json.loads(line))
        except ValueError as error:
          raise ValueError(
            f"{self._path}, line {number} is damaged ({error}): delete the line to run it again."
          ) from error
    return rows

  def add(self, row):
    """Adds a row, whole or not at all: the file is written anew beside itself and renamed."""
    rows = [*self.rows(), row]
    with atomic_path(self._path) as temporary, open(temporary, "w", encoding="utf-8") as file:
      file.writelines(json.dumps(r, sort_keys=True) + "\n" for r in rows)

  def find(self, **values):
    """Returns the rows whose fields have all these values."""
    return [row for row in self.rows() if all(row.get(key) == value for key, value in values.items())]
