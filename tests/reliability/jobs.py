"""Runs small trainings in processes, and compares their work directories."""

import glob
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tfkd import quantization
from tfkd.data import house_numbers

LONGEST = 600
"""Seconds after which a run counts as hanging."""
_DURATIONS = ("seconds", "images_per_second")
# No biases before batch normalisation: their gradient is zero, and Adam would amplify its rounding.
_FLAGS = (
  "--dataset=house_numbers", "--teacher=svhn_cnnx0.25", "--student=svhn_cnnx0.25", "--temperatures=5", "--seeds=0",
  "--epochs=2", "--teacher_epochs=2", "--batch_size=16", "--checkpoint_steps=3", "--deterministic", "--augment",
  "--views=2",
)  # fmt: skip


class Jobs:
  """Runs one experiment repeatedly, each time in a new work directory.

  Args:
    folder: directory for data and work directories.
    scheme: quantization scheme of the student.
    images: number of training images; an epoch has images / 16 steps.
  """

  def __init__(self, folder: str, scheme: str = "w2a1", images: int = 400):
    self._folder = folder
    self._data = os.path.join(folder, "data")
    house_numbers.write(self._data, sizes={"train": images, "test": 100})
    self._flags = [*_FLAGS, f"--data_dir={self._data}", f"--scheme={scheme}"]
    self._number = 0
    start = time.monotonic()
    self.reference = self.new_workdir()
    self.finish(self.reference)
    self.seconds = time.monotonic() - start
    """Duration of an uninterrupted training."""

  def new_workdir(self, folder: str | None = None) -> str:
    """Returns the path of a new work directory."""
    self._number += 1
    return os.path.join(folder or self._folder, f"run{self._number}")

  def log(self, workdir: str) -> str:
    """Returns the path of a run's log, which is outside the work directory, whose disk may be full."""
    return os.path.join(self._folder, f"{os.path.basename(workdir)}.log")

  def start(self, workdir: str, *flags: str, launcher: Sequence[str] = ()) -> subprocess.Popen:
    """Starts a run, whose output goes to `log(workdir)`, and returns its process."""
    command = [sys.executable, "-m", *launcher, "experiments.svhn.q3", f"--workdir={workdir}", *self._flags]
    command += flags
    with open(self.log(workdir), "ab") as log:
      return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)

  def finish(self, workdir: str, *flags: str, launcher: Sequence[str] = ()) -> None:
    """Runs until the end.

    Raises:
      RuntimeError: the run failed.
    """
    code = self.start(workdir, *flags, launcher=launcher).wait(LONGEST)
    if code:
      raise RuntimeError(f"a run ended with {code}: see {self.log(workdir)}")

  def log_text(self, workdir: str) -> str:
    """Returns the output of a run so far."""
    with open(self.log(workdir), encoding="utf-8", errors="replace") as log:
      return log.read()

  def wait_for(
    self, workdir: str, process: subprocess.Popen, is_there: Callable[[], Any], seconds: float = LONGEST
  ) -> bool:
    """Waits until a condition holds, or the process has ended; returns whether it holds."""
    deadline = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < deadline:
      if is_there():
        return True
      time.sleep(0.001)
    return False

  def differences(self, workdir: str, reference: str | None = None, tolerance: float = 0.0) -> list[str]:
    """Describes the differences between a finished work directory and another; empty if there are none."""
    reference = reference or self.reference
    found = []
    if not tolerance and self._rows(workdir) != self._rows(reference):
      found.append("results.jsonl")
    for path in glob.glob(os.path.join(reference, "*", "*.keras")):
      other = os.path.join(workdir, os.path.relpath(path, reference))
      for a, b in zip(_weights(path), _weights(other), strict=True):
        if not np.allclose(a, b, rtol=0, atol=tolerance):
          found.append(f"{os.path.basename(path)} by {np.abs(a - b).max():.2g}")
          break
    return found

  def _rows(self, workdir):
    with open(os.path.join(workdir, "results.jsonl"), encoding="utf-8") as file:
      rows = [json.loads(line) for line in file]
    return [{k: v for k, v in row.items() if k not in (*_DURATIONS, "sha256", "config")} for row in rows]


def _weights(path):
  return quantization.load(path).get_weights()


def checkpoints(workdir: str, model: str = "*", hidden: bool = False) -> list[str]:
  """Returns the directories of checkpoints, or with `hidden` of those being written."""
  return glob.glob(os.path.join(workdir, "checkpoints", model, ".[0-9]*" if hidden else "[0-9]*"))
