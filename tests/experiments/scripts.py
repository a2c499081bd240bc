"""Runs an experiment as its user does: in its own process, in some folder."""

import os
import subprocess
import sys
from pathlib import Path

ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}


def command(name, *flags):
  """The command line of `experiments.<name>`."""
  return [sys.executable, "-m", f"experiments.{name}", *flags]


def run(name, folder, *flags):
  """Runs `experiments.<name>` in a folder; returns the ended process with its output."""
  return subprocess.run(command(name, *flags), cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=600)
