"""Runs scripts of `experiments` in processes of their own."""

import atexit
import functools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}


def command(name, *flags):
  """Returns the command line of `experiments.<name>`."""
  return [sys.executable, "-m", f"experiments.{name}", *flags]


def run(name, folder, *flags):
  """Runs `experiments.<name>` in a directory and returns the completed process with its output."""
  return subprocess.run(command(name, *flags), cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=600)


def run_briefly(name, folder, *flags, **environment):
  """Does the same as `run` without the time of importing TensorFlow, for runs that end before they train.

  Each run is a fork of a process that has imported TensorFlow and has not used it.

  Args:
    name, folder, *flags: see `run`.
    **environment: environment variables.
  """
  server, outputs = _forks()
  server.stdin.write(json.dumps([f"experiments.{name}", str(folder), flags, environment]) + "\n")
  server.stdin.flush()
  code = int(server.stdout.readline())
  stdout, stderr = (Path(outputs, output).read_text() for output in ("stdout", "stderr"))
  return subprocess.CompletedProcess(command(name, *flags), code, stdout, stderr)


@functools.cache
def _forks():
  outputs = tempfile.TemporaryDirectory()
  server = subprocess.Popen(
    [sys.executable, "-m", "tests.experiments.forks", outputs.name], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    stderr=subprocess.DEVNULL, env=ENVIRONMENT, text=True,
  )  # fmt: skip

  def end():
    server.stdin.close()
    server.wait()
    outputs.cleanup()

  atexit.register(end)
  return server, outputs.name


def write_photographs(root, classes, train, test):
  """Writes JPEG files `<split>/<class>/<number>.jpg` of 32 x 32 pixels, whose brightness tells the class."""
  rng = np.random.default_rng(0)
  for split, count in (("train", train), ("test", test)):
    for number, name in enumerate(classes):
      (root / split / name).mkdir(parents=True)
      for i in range(count):
        pixels = rng.integers(0, 100, (32, 32, 3), np.uint8) + np.uint8(15 * number)
        Image.fromarray(pixels).save(root / split / name / f"{i}.jpg")
