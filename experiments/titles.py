"""Names of data sets in titles and columns of reports."""

from collections.abc import Mapping
from typing import Any


def copies(row: Mapping[str, Any]) -> str:
  """Returns " (JPEG copies)" for CIFAR-10 that was not downloaded, but read from JPEG files; else "".

  Args:
    row: row of the results of a teacher or of a student.
  """
  return " (JPEG copies)" if row["dataset"] == "cifar10" and row["config"]["data_dir"] is not None else ""


def data_of(row: Mapping[str, Any]) -> str:
  """Returns the name of the data set of a row, with the kind of its files."""
  return f"{row['dataset']}{copies(row)}"
