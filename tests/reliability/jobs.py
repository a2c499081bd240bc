"""Small trainings that are killed, asked to end, damaged and run out of disk, and end as if nothing had been."""

import glob
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
from absl import logging

from tfkd import quantization
from tfkd.data import house_numbers

_LONGEST = 600
_ROUNDING = 1e-4  # Sums of two workers' gradients are taken in another order.
_OF_CLOCKS = ("seconds", "images_per_second")
_FLAGS = (
  "--dataset=house_numbers", "--teacher=svhn_cnnx0.25", "--student=svhn_cnnx0.25", "--temperatures=5", "--seeds=0",
  "--epochs=2", "--teacher_epochs=2", "--batch_size=16", "--checkpoint_steps=3", "--deterministic", "--augment",
  "--views=2",
)  # fmt: skip


class Jobs:
  """Runs one experiment again and again, in workdirs of its own.

  Args:
    folder: for data and workdirs.
    scheme: of the student.
    images: of the training; a sixteenth of it are the steps of an epoch.
  """

  def __init__(self, folder, scheme="w2a1", images=400):
    self._folder = folder
    self._data = os.path.join(folder, "data")
    house_numbers.write(self._data, sizes={"train": images, "test": 100})
    self._scheme = scheme
    self._number = 0
    start = time.monotonic()
    self.reference = self.new_workdir()
    self.finish(self.reference)
    self.seconds = time.monotonic() - start
    """Of a run that is not interrupted."""

  def new_workdir(self, folder=None):
    self._number += 1
    return os.path.join(folder or self._folder, f"run{self._number}")

  def log(self, workdir):
    """Where a run's processes say what they do; never beside a workdir, whose disk may be full."""
    return os.path.join(self._folder, f"{os.path.basename(workdir)}.log")

  def start(self, workdir, *flags, launcher=()):
    """The started process; what it says goes to `log(workdir)`."""
    command = [sys.executable, "-m", *launcher, "experiments.svhn.q3", f"--workdir={workdir}", *_FLAGS]
    command += [f"--data_dir={self._data}", f"--scheme={self._scheme}", *flags]
    with open(self.log(workdir), "ab") as log:
      return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)

  def finish(self, workdir, *flags, launcher=()):
    """Runs to the end.

    Raises:
      RuntimeError: it fails.
    """
    code = self.start(workdir, *flags, launcher=launcher).wait(_LONGEST)
    if code:
      raise RuntimeError(f"a run ended with {code}: see {self.log(workdir)}")

  def said(self, workdir):
    """What its processes wrote, up to now."""
    with open(self.log(workdir), encoding="utf-8", errors="replace") as log:
      return log.read()

  def wait_for(self, workdir, process, is_there, seconds=_LONGEST):
    """Waits until a condition holds, or the process has ended; returns whether it holds."""
    deadline = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < deadline:
      if is_there():
        return True
      time.sleep(0.001)
    return False

  def differences(self, workdir, reference=None, tolerance=0.0):
    """How a finished workdir differs from another: a list of words, empty where it does not."""
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
    return [{k: v for k, v in row.items() if k not in (*_OF_CLOCKS, "sha256", "config")} for row in rows]


def _weights(path):
  return quantization.load(path).get_weights()


def checkpoints(workdir, model="*", hidden=False):
  """Folders of checkpoints, or those that are being written."""
  return glob.glob(os.path.join(workdir, "checkpoints", model, ".[0-9]*" if hidden else "[0-9]*"))


def kills(jobs, count, seed=0):
  """SIGKILL at random moments of the run, every second time while a checkpoint is being written."""
  rng, made, lost, jobs_done = random.Random(seed), 0, 0, 0
  while made < count:
    workdir = jobs.new_workdir()
    while True:
      process = jobs.start(workdir)
      if made < count:
        time.sleep(rng.uniform(0.2, 0.9) * jobs.seconds)
        if made % 2:
          jobs.wait_for(workdir, process, lambda w=workdir: checkpoints(w, hidden=True), 2)
      else:
        process.wait(_LONGEST)
      if process.poll() is not None:
        break
      process.kill()
      process.wait()
      made += 1
    lost += _is_lost(jobs, workdir, process.returncode)
    jobs_done += 1
  return {"what": f"SIGKILL, in {jobs_done} runs", "tried": made, "lost": lost}


def terminations(jobs, count, seed=1):
  """SIGTERM in a fit: exit code 0 within ten seconds, and nothing lost."""
  rng, lost, longest = random.Random(seed), 0, 0.0
  for _ in range(count):
    workdir = jobs.new_workdir()
    process = jobs.start(workdir)
    jobs.wait_for(workdir, process, lambda w=workdir: checkpoints(w))
    time.sleep(rng.uniform(0, 3))
    process.terminate()
    start = time.monotonic()
    code = process.wait(_LONGEST)
    longest = max(longest, time.monotonic() - start)
    jobs.finish(workdir)
    lost += bool(code) or _is_lost(jobs, workdir, 0)
  return {"what": f"SIGTERM; exit after at most {longest:.1f} s", "tried": count, "lost": lost + (longest > 10)}


def damages(jobs):
  """A killed run whose newest checkpoint, cache or results are damaged before it goes on."""
  rows = []
  for what, pattern in (
    ("checkpoint", "checkpoints/*/[0-9]*/variables.data*"), ("checkpoint's manifest", "checkpoints/*/[0-9]*/manifest*"),
    ("cache", "teacher/outputs/train*/outputs.bin"), ("line of results", "results.jsonl"),
  ):  # fmt: skip
    lost = 0
    for damage in (_truncate, _flip):
      workdir = jobs.new_workdir()
      process = jobs.start(workdir)
      jobs.wait_for(workdir, process, lambda w=workdir: len(checkpoints(w, "q3*")) > 1)
      process.kill()
      process.wait()
      file = sorted(glob.glob(os.path.join(workdir, pattern)))[-1]
      damage(file)
      jobs.finish(workdir)
      is_named = os.path.dirname(file) in jobs.said(workdir) or file in jobs.said(workdir)
      lost += not is_named or _is_lost(jobs, workdir, 0)
    rows.append({"what": f"damaged {what}: named, and what is before it used", "tried": 2, "lost": lost})
  return rows


def second_process(jobs):
  """A second process on a workdir is refused, with the owner's pid; a dead one's lock is taken over."""
  workdir = jobs.new_workdir()
  first = jobs.start(workdir)
  jobs.wait_for(workdir, first, lambda: os.path.exists(os.path.join(workdir, ".owner.json")))
  time.sleep(0.2)
  second = jobs.start(workdir)
  refused = second.wait(_LONGEST) == 1 and f"process {first.pid} on " in jobs.said(workdir)
  first.kill()
  first.wait()
  jobs.finish(workdir)
  return {"what": "second process on a workdir", "tried": 1, "lost": int(not refused or _is_lost(jobs, workdir, 0))}


def full_disk(jobs):
  """A disk that fills up: a clear error; with more room, the run goes on. None where nothing may be mounted."""
  mount = os.path.join(os.path.dirname(jobs.reference), "disk")
  os.makedirs(mount)
  lost = tried = 0
  needed = sum(os.path.getsize(path) for path in glob.glob(os.path.join(jobs.reference, "**"), recursive=True)) // 1024
  for size in (needed // 5, needed // 2, 4 * needed // 5):
    workdir = jobs.new_workdir(mount)
    options = ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", mount]
    if subprocess.run(options, capture_output=True).returncode:
      return None
    try:
      process = jobs.start(workdir)
      code = process.wait(_LONGEST)
      said = jobs.said(workdir)
      subprocess.run(["mount", "-o", "remount,size=1g", mount], check=True, capture_output=True)
      jobs.finish(workdir)
      tried += 1
      if code != 1 or "no space left" not in said.lower() or "Traceback" in said:
        logging.error("a full disk of %d kB ended in %d: %s", size, code, said[-4000:])
        lost += 1
      else:
        lost += _is_lost(jobs, workdir, 0)
    finally:
      subprocess.run(["umount", mount], capture_output=True)
  return {"what": "full disk", "tried": tried, "lost": lost}


def workers(jobs):
  """Two workers end as two devices of one process, and so they do where one is killed and all are started again."""
  mirrored = jobs.new_workdir()
  jobs.finish(mirrored, "--strategy=mirrored", launcher=("tests.reliability.two_devices",))
  lost = []
  for is_killed in (False, True):
    workdir, code = _launch(jobs, 2, is_killed)
    differences = [f"exit code {code}"] if code else jobs.differences(workdir, mirrored, _ROUNDING)
    if not code and len(set(_digests(jobs, workdir))) != 1:
      differences.append("workers differ")
    if not code and (written := re.findall(r"wrote (.*)", _second_log(jobs, workdir))):
      differences.append(f"the second worker wrote {', '.join(written)}")
    if differences:
      logging.error("%s differs from the mirrored run %s: %s", workdir, mirrored, "; ".join(differences))
    lost.append(int(bool(differences)))
  return [
    {"what": "two workers, against two devices of one process", "tried": 1, "lost": lost[0]},
    {"what": "two workers, one of which is killed, likewise", "tried": 1, "lost": lost[1]},
  ]


def servers(jobs):
  """Chief, worker and server of variables end as one process: a single worker takes its steps in their order."""
  lost = []
  for is_killed in (False, True):
    workdir, code = _launch(jobs, 1, is_killed, "--strategy=parameter_server")
    differences = [f"exit code {code}"] if code else jobs.differences(workdir, tolerance=_ROUNDING)
    if differences:
      logging.error("%s differs from a run of one process: %s", workdir, "; ".join(differences))
    lost.append(int(bool(differences)))
  return [
    {"what": "parameter server with one worker, against one process", "tried": 1, "lost": lost[0]},
    {"what": "parameter server whose worker is killed, likewise", "tried": 1, "lost": lost[1]},
  ]


def _launch(jobs, workers, is_killed, *flags):
  """Runs several processes to their end; or kills the second of them in between. Returns workdir and exit code."""
  workdir = jobs.new_workdir()
  process = jobs.start(workdir, *flags, launcher=("tfkd.training.launch", f"--workers={workers}", "--restarts=1", "--"))
  if is_killed:
    jobs.wait_for(workdir, process, lambda: checkpoints(workdir))
    os.kill(worker_pids(jobs, workdir)[1], signal.SIGKILL)
  return workdir, process.wait(_LONGEST)


def _digests(jobs, workdir):
  """Of the student's weights, as each worker of the last start found them."""
  texts = jobs.said(workdir), _second_log(jobs, workdir)
  return [re.findall(r"SHA-256 of its weights: (\w+)", text)[-1] for text in texts]


def _second_log(jobs, workdir):
  """What the second worker of the last start wrote."""
  *_, folder = re.findall(r"all but the first write to (\S+)", jobs.said(workdir))
  with open(os.path.join(folder, "1.log"), encoding="utf-8", errors="replace") as log:
    return log.read()


def worker_pids(jobs, workdir):
  """Processes that the launcher of a run said it started."""
  return json.loads(jobs.said(workdir).split("workers are processes ")[1].split(";")[0])


def _is_lost(jobs, workdir, code):
  differences = [f"exit code {code}"] if code else jobs.differences(workdir)
  if differences:
    logging.error("%s differs from a run that was not interrupted: %s", workdir, "; ".join(differences))
  else:
    shutil.rmtree(workdir)
  return bool(differences)


def _truncate(path):
  os.truncate(path, os.path.getsize(path) // 2)


def _flip(path):
  with open(path, "r+b") as file:
    file.seek(os.path.getsize(path) // 2)
    byte = file.read(1)[0]
    file.seek(-1, os.SEEK_CUR)
    file.write(bytes([byte ^ 4]))
