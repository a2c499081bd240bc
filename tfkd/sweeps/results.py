"""The rows of a sweep: one JSON line for each trained model."""

import os
import shutil

from absl import logging

from tfkd.storage.digests import from_checked_json, to_checked_json
from tfkd.storage.files import atomic_path, write_text


class Results:
  """A `results.jsonl` file. Each line has a digest of the rest of it.

  Args:
    path: the file; made with the first row.
  """

  def __init__(self, path):
    self._path = path
    self._named = set()

  def rows(self):
    """Returns all rows as dicts, in the order in which they were added; damaged lines are named and left out."""
    return self._read()[0]

  def add(self, row):
    """Adds a row, whole or not at all: the file is written anew beside itself and renamed.

    Where lines are damaged, the file as it was is kept as `results.jsonl.damaged`.
    """
    rows, damaged = self._read()
    if damaged:
      with atomic_path(f"{self._path}.damaged") as temporary:
        shutil.copyfile(self._path, temporary)
    write_text(self._path, "".join(to_checked_json(r) + "\n" for r in [*rows, row]))

  def find(self, **values):
    """Returns the rows whose fields have all these values."""
    return [row for row in self.rows() if all(row.get(key) == value for key, value in values.items())]

  def _read(self):
    """The rows, and the numbers of damaged lines."""
    if not os.path.exists(self._path):
      return [], []
    rows, damaged = [], []
    with open(self._path, "rb") as file:
      for number, line in enumerate(file, 1):
        try:
          rows.append(from_checked_json(line.decode()))
        except ValueError as error:
          damaged.append(number)
          if number not in self._named:
            logging.warning("%s, line %d is damaged (%s): it is left out, and trained again", self._path, number, error)
            self._named.add(number)
    return rows, damaged
