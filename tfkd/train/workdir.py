"""The folder that a sweep owns: what belongs to which configuration."""

import json
import os
import shutil
from types import MappingProxyType

from tfkd.files import atomic_path

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
  """
  if os.path.exists(path) and not os.path.isdir(path):
    raise ValueError(f"workdir {path} is a file; expected a folder, or a name for a new one.")
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
      except ValueError as error:
        raise ValueError(f"{file} is damaged ({error}): use another workdir, or --overwrite.") from error
    found = {**defaults, **found}
    keys = sorted(found.keys() | configuration.keys())
    differences = [
      f"{k}: {found.get(k)} there, {configuration.get(k)} now" for k in keys if found.get(k) != configuration.get(k)
    ]
    if differences:
      raise ValueError(
        f"{path} holds a teacher and results of another configuration ({'; '.join(differences)}): use another "
        "--workdir, or --overwrite to start anew."
      )
  with atomic_path(file) as temporary, open(temporary, "w", encoding="utf-8") as opened:
    json.dump(configuration, opened, indent=2, sort_keys=True)
