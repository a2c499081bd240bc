"""SHA-256 digests of files, arrays and JSON, by which damage and mismatches are found."""

import hashlib
import json
import os
from collections.abc import Iterable
from typing import Any

import numpy as np


def sha256_of_bytes(content: bytes) -> str:
  """Returns the hexadecimal SHA-256 of bytes."""
  return hashlib.sha256(content).hexdigest()


def sha256_of_file(path: str | os.PathLike) -> str:
  """Returns the hexadecimal SHA-256 of a file's content."""
  with open(path, "rb") as file:
    return sha256_of_bytes(file.read())


def sha256_of_arrays(arrays: Iterable[np.ndarray]) -> str:
  """Computes one digest of several arrays, such as a model's weights or a data set.

  Args:
    arrays: numpy arrays of any type. Their types, shapes, values and order count.

  Returns:
    The hexadecimal SHA-256.
  """
  digest = hashlib.sha256()
  for array in arrays:
    digest.update(f"{array.dtype}{array.shape}".encode())
    digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
  return digest.hexdigest()


def to_checked_json(content: dict[str, Any]) -> str:
  """Serializes a dict to one line of JSON that holds the SHA-256 of the other entries.

  Args:
    content: JSON values by name, without "sha256".

  Returns:
    The line, without a newline, to be read by `from_checked_json`.
  """
  content = json.loads(json.dumps(content))
  return json.dumps({**content, "sha256": _digest(content)}, sort_keys=True)


def from_checked_json(text: str | bytes) -> dict[str, Any]:
  """Reads the dict that `to_checked_json` serialized.

  Raises:
    ValueError: the text was changed, has no digest, or is not JSON.
  """
  try:
    content = json.loads(text)
  except RecursionError as error:
    raise ValueError("it is nested too deeply") from error
  if not isinstance(content, dict):
    raise ValueError(f"expected a dict; found a {type(content).__name__}")
  if content.pop("sha256", None) != _digest(content):
    raise ValueError("its SHA-256 differs from the one that was written")
  return content


def _digest(content):
  return sha256_of_bytes(json.dumps(content, sort_keys=True).encode())
