"""Number of cores that this process may use."""

import os


def available_cores() -> int:
  """Returns the number of cores that this process may run on.

  Threads that wait for others on the same core make LiteRT several times slower.
  """
  if hasattr(os, "sched_getaffinity"):  # Not on macOS and Windows.
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1
