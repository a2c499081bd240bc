"""Kills, terminates and damages small trainings, and compares them with uninterrupted ones."""

import glob
import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from typing import Any, TypeAlias

from absl import logging

from tests.reliability.jobs import LONGEST, Jobs, checkpoints

_ROUNDING = 1e-4  # The gradients of two workers are summed in another order.

Row: TypeAlias = dict[str, Any]
""""event", number "tried" and number "lost"."""


def kills(jobs: Jobs, count: int, seed: int = 0) -> Row:
  """Kills runs at random moments, every second time while a checkpoint is being written."""
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
        process.wait(LONGEST)
      if process.poll() is not None:
        break
      process.kill()
      process.wait()
      made += 1
    lost += _is_lost(jobs, workdir, process.returncode)
    jobs_done += 1
  return {"event": f"SIGKILL, in {jobs_done} runs", "tried": made, "lost": lost}


def terminations(jobs: Jobs, count: int, seed: int = 1) -> Row:
  """Sends SIGTERM during a fit: the exit status must be 0 within ten seconds, with nothing lost."""
  rng, lost, longest = random.Random(seed), 0, 0.0
  for _ in range(count):
    workdir = jobs.new_workdir()
    process = jobs.start(workdir)
    jobs.wait_for(workdir, process, lambda w=workdir: checkpoints(w))
    time.sleep(rng.uniform(0, 3))
    process.terminate()
    start = time.monotonic()
    code = process.wait(LONGEST)
    longest = max(longest, time.monotonic() - start)
    jobs.finish(workdir)
    lost += bool(code) or _is_lost(jobs, workdir, 0)
  return {"event": f"SIGTERM; exit after at most {longest:.1f} s", "tried": count, "lost": lost + (longest > 10)}


def damages(jobs: Jobs) -> list[Row]:
  """Kills runs, and damages their newest checkpoint, cache or results before they resume."""
  rows = []
  for damaged, pattern in (
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
      is_named = os.path.dirname(file) in jobs.log_text(workdir) or file in jobs.log_text(workdir)
      lost += not is_named or _is_lost(jobs, workdir, 0)
    rows.append({"event": f"damaged {damaged}: reported, and the previous state used", "tried": 2, "lost": lost})
  return rows


def second_process(jobs: Jobs) -> Row:
  """Starts a second process on a work directory, which must be refused; a dead owner's lock must be taken over."""
  workdir = jobs.new_workdir()
  first = jobs.start(workdir)
  jobs.wait_for(workdir, first, lambda: os.path.exists(os.path.join(workdir, ".owner.json")))
  time.sleep(0.2)
  second = jobs.start(workdir)
  refused = second.wait(LONGEST) == 1 and f"process {first.pid} on " in jobs.log_text(workdir)
  first.kill()
  first.wait()
  jobs.finish(workdir)
  return {"event": "second process on a workdir", "tried": 1, "lost": int(not refused or _is_lost(jobs, workdir, 0))}


def full_disk(jobs: Jobs) -> Row | None:
  """Fills a disk, which must give a clear error, and resumes with more space; None without permission to mount."""
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
      code = process.wait(LONGEST)
      text = jobs.log_text(workdir)
      subprocess.run(["mount", "-o", "remount,size=1g", mount], check=True, capture_output=True)
      jobs.finish(workdir)
      tried += 1
      if code != 1 or "no space left" not in text.lower() or "Traceback" in text:
        logging.error("a full disk of %d kB ended in %d: %s", size, code, text[-4000:])
        lost += 1
      else:
        lost += _is_lost(jobs, workdir, 0)
    finally:
      subprocess.run(["umount", mount], capture_output=True)
  return {"event": "full disk", "tried": tried, "lost": lost}


def workers(jobs: Jobs, kills: Sequence[bool] = (False, True)) -> list[Row]:
  """Compares two workers with two devices of one process, without a kill and with one followed by a restart."""
  mirrored = jobs.new_workdir()
  jobs.finish(mirrored, "--strategy=mirrored", launcher=("tests.reliability.two_devices",))
  rows = []
  for is_killed in kills:
    workdir, code = _launch(jobs, 2, is_killed)
    differences = [f"exit code {code}"] if code else jobs.differences(workdir, mirrored, _ROUNDING)
    if not code and len(set(_digests(jobs, workdir))) != 1:
      differences.append("workers differ")
    if not code and (written := re.findall(r"wrote (.*)", _second_log(jobs, workdir))):
      differences.append(f"the second worker wrote {', '.join(written)}")
    if differences:
      logging.error("%s differs from the mirrored run %s: %s", workdir, mirrored, "; ".join(differences))
    event = f"two workers{', one of which is killed' if is_killed else ''}, against two devices of one process"
    rows.append({"event": event, "tried": 1, "lost": int(bool(differences))})
  return rows


def servers(jobs: Jobs, kills: Sequence[bool] = (False, True)) -> list[Row]:
  """Compares a parameter server with one worker, whose steps are in order, with one process."""
  rows = []
  for is_killed in kills:
    workdir, code = _launch(jobs, 1, is_killed, "--strategy=parameter_server")
    differences = [f"exit code {code}"] if code else jobs.differences(workdir, tolerance=_ROUNDING)
    if differences:
      logging.error("%s differs from a run of one process: %s", workdir, "; ".join(differences))
    event = f"parameter server {'whose worker is killed' if is_killed else 'with one worker'}, against one process"
    rows.append({"event": event, "tried": 1, "lost": int(bool(differences))})
  return rows


def _launch(jobs, workers, is_killed, *flags):
  """Runs several processes, and optionally kills the second one; returns work directory and exit status."""
  workdir = jobs.new_workdir()
  process = jobs.start(workdir, *flags, launcher=("tfkd.training.launch", f"--workers={workers}", "--restarts=1", "--"))
  if is_killed:
    jobs.wait_for(workdir, process, lambda: checkpoints(workdir))
    os.kill(worker_pids(jobs, workdir)[1], signal.SIGKILL)
  return workdir, process.wait(LONGEST)


def _digests(jobs, workdir):
  """Returns the digest of the student's weights in each worker of the last start."""
  texts = jobs.log_text(workdir), _second_log(jobs, workdir)
  return [re.findall(r"SHA-256 of its weights: (\w+)", text)[-1] for text in texts]


def _second_log(jobs, workdir):
  """Returns the output of the second worker of the last start."""
  *_, folder = re.findall(r"all but the first write to (\S+)", jobs.log_text(workdir))
  with open(os.path.join(folder, "1.log"), encoding="utf-8", errors="replace") as log:
    return log.read()


def worker_pids(jobs: Jobs, workdir: str) -> list[int]:
  """Returns the process ids in the launcher's log."""
  return json.loads(jobs.log_text(workdir).split("workers are processes ")[1].split(";")[0])


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
