"""The directory of a sweep: its paths, results and configuration, its lock, and whether this process writes to it."""

import json
import os
import shutil
import socket
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import filelock
import tf_keras as keras
from absl import logging

from tfkd import quantization
from tfkd.storage.files import path_to_write, write_json
from tfkd.sweeps.results import Results

_locks: dict[str, filelock.BaseFileLock] = {}  # By real path. A process holds its locks until it ends.
_CONTENTS = ("config.json", "results.jsonl", "report.md", "teacher", "students", "logs", "checkpoints", "costs")


class Workspace:
  """A directory that belongs to one configuration and to one process at a time.

  It holds `config.json`, `results.jsonl`, and the directories teacher, students, logs and checkpoints.

  Args:
    path: the directory, which is made when it is claimed.
    writes: whether this process writes. Of several workers only the chief does; for the others `claim`, `add` and
      `remove` do nothing, and `save` leaves no file.
  """

  def __init__(self, path: str | os.PathLike, writes: bool = True):
    self._path = os.fspath(path)
    self.writes = writes
    self.results = Results(self.path("results.jsonl"))

  def path(self, *parts: str) -> str:
    """Returns a path inside the directory."""
    return os.path.join(self._path, *parts)

  def log_dir(self, name: str) -> str:
    """Returns the directory of a model's TensorBoard logs."""
    return self.path("logs", name)

  def checkpoint_dir(self, name: str) -> str:
    """Returns the directory of a model's checkpoints while it is trained."""
    return self.path("checkpoints", name)

  def claim(
    self,
    configuration: Mapping[str, Any],
    overwrite: bool = False,
    defaults: Mapping[str, Any] = MappingProxyType({}),
  ) -> None:
    """Locks the directory for this process and for a configuration.

    Args:
      configuration: JSON values that decide the results.
      overwrite: remove the results of an earlier sweep first; other files are kept.
      defaults: values of fields that an older `config.json` lacks.

    Raises:
      ValueError: the directory holds results of another configuration, whose differing fields are named; or the path is
        a file.
      OSError: another process is using the directory.
    """
    if not self.writes:
      return
    if os.path.exists(self._path) and not os.path.isdir(self._path):
      raise ValueError(f"workdir {self._path} is a file; expected a directory, or a name for a new one.")
    _lock(self._path)
    if overwrite:
      self.remove(*_CONTENTS)
    file = self.path("config.json")
    if os.path.exists(file):
      self._compare({**defaults, **_read_configuration(file)}, configuration)
    write_json(file, dict(configuration))

  def _compare(self, found, configuration):
    keys = sorted(found.keys() | configuration.keys())
    differences = [
      f"{key}: {found.get(key)} there, {configuration.get(key)} now"
      for key in keys
      if found.get(key) != configuration.get(key)
    ]
    if differences:
      raise ValueError(
        f"{self._path} holds a teacher and results of another configuration ({'; '.join(differences)}): use another "
        "workdir, or overwrite=True to start over."
      )

  def remove(self, *names: str) -> None:
    """Removes files and directories by their paths inside the directory; missing ones are skipped."""
    for target in map(self.path, names if self.writes else ()):
      if os.path.isdir(target):
        shutil.rmtree(target)
      elif os.path.exists(target):
        os.remove(target)

  def save(self, model: keras.Model, path: str) -> None:
    """Saves a model. All workers call this, since saving reads variables of all workers.

    Args:
      model: `tf_keras` model.
      path: `.keras` file in the directory.
    """
    with path_to_write(path, self.writes) as written:
      quantization.save(model, written)
    if self.writes:
      logging.info("wrote %s", path)

  def finish(self, name: str, path: str) -> None:
    """Moves the best model of a finished fit to `<path without suffix>.best.keras` and removes its checkpoints."""
    checkpoint_dir = self.checkpoint_dir(name)
    if self.writes and os.path.exists(checkpoint_dir):
      os.replace(os.path.join(checkpoint_dir, "best.keras"), f"{path.removesuffix('.keras')}.best.keras")
      shutil.rmtree(checkpoint_dir)

  def add(self, row: Mapping[str, Any]) -> None:
    """Adds a row to the results."""
    if self.writes:
      self.results.add(row)


def _read_configuration(file: str) -> dict[str, Any]:
  with open(file, encoding="utf-8") as opened:
    try:
      return dict(**json.load(opened))
    except (ValueError, TypeError, RecursionError) as error:
      raise ValueError(f"{file} is damaged ({error}): use another workdir, or overwrite=True.") from error


def _lock(path: str) -> None:
  """Locks the directory for this process. The operating system releases the lock of a process that died."""
  path = os.path.realpath(path)
  if path in _locks:
    return
  os.makedirs(path, exist_ok=True)
  owner = os.path.join(path, ".owner.json")
  lock = filelock.FileLock(os.path.join(path, ".lock"))
  try:
    lock.acquire(timeout=0)
  except filelock.Timeout:
    try:
      with open(owner, encoding="utf-8") as file:
        holder = "process {pid} on {host}".format(**json.load(file))
    except (OSError, ValueError, KeyError):
      holder = "another process"  # It has the lock, but has not written its name yet.
    raise OSError(f"{holder} is using {path}: wait until it ends, stop it, or use another workdir.") from None
  _locks[path] = lock
  write_json(owner, {"pid": os.getpid(), "host": socket.gethostname()})
