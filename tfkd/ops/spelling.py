"""Suggestions for misspelled names."""

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, names: Iterable[str]) -> str:
  """Returns "did you mean 'x' or 'y'? " with the names closest to `name`, or "" if none is close."""
  close = difflib.get_close_matches(name, list(names))
  return f"did you mean {' or '.join(map(repr, close))}? " if close else ""
