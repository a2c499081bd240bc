"""The folder that a sweep owns: what belongs to which configuration, and which process works there."""

import json
import os
import shutil
import socket
from types import MappingProxyType

import filelock

from tfkd.storage.files import write_json

_locks = {}  # By real path. A process keeps what it has claimed until it ends, however it ends.
_OURS = ("config.json", "results.jsonl", "report.md", "teacher", "students", "logs", "checkpoints", "costs")


def open_workdir(path, configuration, overwrite=False, defaults=MappingProxyType({})):
  """Claims a folder for a configuration, or returns to one that has it already.

  Args:
    path: the folder; made if missing.
    configuration: dict of JSON values that decide the results.
    overwrite: remove what an earlier run left there.
    defaults: dict of values for fields that the folder's configuration lacks, since it is older than they are.

  Raises:
    ValueError: the folder holds results of another configuration; the differing fields are named. Or it is a file.
    OSError: another process works there.
  """
  if os.path.exists(path) and not os.path.isdir(path):
    raise ValueError(f"workdir {path} is a file; expected a folder, or a name for a new one.")
  _lock(path)
  file = os.path.join(path, "config.json")
  if overwrite:
    for name in _OURS:
      target = os.path.join(path, name)
      if os.path.isdir(target):
        shutil.rmtree(target)
      elif os.path.exists(target):
        os.remove(target)
  if os.path.exists(file):
    with open(file, encoding="utf-8") as opened:
      try:
        found = json.load(opened)
        found = {**defaults, **found}
      except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{file} is damaged ({error}): use another workdir, or --overwrite.") from error
    keys = sorted(found.keys() | configuration.keys())
    differences = [
      f"{k}: {found.get(k)} there, {configuration.get(k)} now" for k in keys if found.get(k) != configuration.get(k)
    ]
    if differences:
      raise ValueError(
        f"{path} holds a teacher and results of another configuration ({'; '.join(differences)}): use another "
        "--workdir, or --overwrite to start anew."
      )
  write_json(file, configuration)


def _lock(path):
  """Claims the folder for this process. The system drops the lock of a process that died."""
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
        words = "process {pid} on {host}".format(**json.load(file))
    except (OSError, ValueError, KeyError):
      words = "another process"  # It has not said yet who it is.
    raise OSError(f"{words} works in {path}: wait for it, end it, or use another --workdir.") from None
  _locks[path] = lock
  write_json(owner, {"pid": os.getpid(), "host": socket.gethostname()})
