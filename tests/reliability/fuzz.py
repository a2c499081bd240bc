"""Gives damaged files to readers, each in a process of its own with limited time and memory."""

import collections
import multiprocessing
import os
import resource
import shutil
import signal
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import logging

from tests.reliability.readers import DOCUMENTED, READERS, Operation, Reader, mutated
from tfkd.ops.timing import status_bytes

_SECONDS = 60  # Time limit of one file, which includes tracing by TensorFlow.
_BYTES = 8 * 2**30
OUTCOMES = ("refused", "read", "wrong", "undocumented", "hang", "crash")
"""Outcomes of reading a damaged file; the last four are defects."""


def fuzz(name: str, cases: int, seed: int = 0) -> collections.Counter[str]:
  """Counts the outcomes of reading damaged files.

  Args:
    name: key of `READERS`.
    cases: number of damaged files.
    seed: seed of the damage.

  Returns:
    Number of files by outcome, of `OUTCOMES`.
  """
  counts = collections.Counter()
  context = multiprocessing.get_context("spawn")
  case = 0
  while case < cases:
    ours, theirs = context.Pipe(False)
    process = context.Process(target=_work, args=(theirs, name, range(case, cases), seed))
    process.start()
    theirs.close()
    try:
      while ours.poll(2 * _SECONDS):  # A loop inside a library does not react to signals.
        counts[ours.recv()] += 1
        case += 1
    except EOFError:
      pass
    is_hanging = process.is_alive() and case < cases
    process.kill() if is_hanging else process.join()
    if case < cases:
      counts["hang" if is_hanging else "crash"] += 1
      logging.error("%s: damaged file %d of seed %d: %s", name, case, seed, "hang" if is_hanging else process.exitcode)
      case += 1
  return counts


def operations_of(case: int, seed: int) -> list[Operation]:
  """Returns the damage of a case: one to four operations of `mutated`."""
  rng = np.random.default_rng((seed, case))
  return [(int(rng.integers(6)), float(rng.random()), int(rng.integers(256))) for _ in range(rng.integers(1, 5))]


def try_to_read(reader: Reader, path: str, file: str, valid: dict[str, Any], operations: Sequence[Operation]) -> str:
  """Damages a file, reads it, and returns the outcome.

  Args:
    reader: the reader.
    path, file: argument and result of the reader's `write`.
    valid: "bytes" of the undamaged file, and the "content" that the reader returns for it.
    operations: see `mutated`.
  """
  return outcome(reader, path, file, valid, mutated(valid["bytes"], operations))


def outcome(reader: Reader, path: str, file: str, valid: dict[str, Any], content: bytes) -> str:
  """Writes content to a file, reads it, and returns the outcome; see `try_to_read`."""
  with open(file, "wb") as opened:
    opened.write(content)
  try:
    found = reader.read(path)
  except DOCUMENTED:
    return "refused"
  except _Hang:
    return "hang"
  except Exception as error:  # noqa: BLE001  (undocumented errors are the defects to find)
    logging.error("%s: undocumented %s: %s", file, type(error).__name__, error)
    return "undocumented"
  return "read" if not reader.is_checked or _is_part(found, valid["content"]) else "wrong"


class _Hang(Exception):
  pass


def _work(pipe, name, cases, seed):
  def stop(*_):
    raise _Hang

  logging.set_verbosity(logging.FATAL)
  signal.signal(signal.SIGALRM, stop)
  folder = tempfile.mkdtemp()
  reader, path, file, valid = valid_file(name, folder)
  resource.setrlimit(resource.RLIMIT_AS, (status_bytes("VmSize") + _BYTES, resource.RLIM_INFINITY))
  logging.set_verbosity(logging.ERROR)
  for case in cases:
    signal.alarm(_SECONDS)
    found = try_to_read(reader, path, file, valid, operations_of(case, seed))
    signal.alarm(0)
    pipe.send(found)
  shutil.rmtree(folder)


def valid_file(name: str, folder: str) -> tuple[Reader, str, str, dict[str, Any]]:
  """Writes a valid file of a reader; returns the first four arguments of `try_to_read`."""
  reader, path = READERS[name], os.path.join(folder, "x")
  file = reader.write(path)
  with open(file, "rb") as opened:
    return reader, path, file, {"bytes": opened.read(), "content": reader.read(path)}


def _is_part(found, content):
  """Returns whether the found content equals the written one; lists may lack elements, and dicts may have more keys."""
  if isinstance(content, np.ndarray):
    return np.array_equal(found, content)
  if isinstance(content, list):
    return all(any(_is_part(row, known) for known in content) for row in found)
  return all(found.get(key) == value for key, value in content.items())
