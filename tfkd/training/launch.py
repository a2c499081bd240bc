"""Starts an experiment as several workers on this machine, which take every step together.

Each worker has its part of the global batch; the first one writes the results, and alone prints. What the others print
goes to files. Where one of them dies, all are ended, and with --restarts started again: they go on from the last
checkpoint. SIGTERM is passed on.

With --strategy=parameter_server among the experiment's flags there are a chief, which writes and prints, the workers,
and one server for the variables.

  python -m tfkd.training.launch --workers=2 -- experiments.svhn.q3 --preset=quick
  python -m tfkd.training.launch --workers=2 --restarts=3 -- experiments.food11.strong --checkpoint_steps=500
  python -m tfkd.training.launch --workers=2 -- experiments.svhn.q3 --preset=quick --strategy=parameter_server
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time

from absl import app, flags, logging

flags.DEFINE_integer("workers", 2, "Processes that train.", lower_bound=1)
flags.DEFINE_integer("restarts", 0, "How often all are started again after one of them failed.", lower_bound=0)

_GRACE = 10.0  # Seconds: one that waits for others does not hear a signal.


def main(argv):
  """Runs the workers; see the module."""
  if len(argv) < 2 or argv[1].startswith("-"):
    raise app.UsageError("expected -- <module> <its flags>, for example -- experiments.svhn.q3 --preset=quick.")
  logging.set_verbosity(logging.INFO)
  module, *rest = argv[1:]
  if not any(flag.startswith("--strategy") for flag in rest):
    rest.append("--strategy=multi_worker")
  command = [sys.executable, "-m", module, *rest]
  is_asked_to_end = []
  signal.signal(signal.SIGTERM, lambda *_: is_asked_to_end.append(True))
  for attempt in range(flags.FLAGS.restarts + 1):
    if attempt:
      logging.info("start %d of %d", attempt + 1, flags.FLAGS.restarts + 1)
    code = _run(command, _jobs(rest, flags.FLAGS.workers), is_asked_to_end)
    if code == 0 or is_asked_to_end:
      break
  sys.exit(code)


def _jobs(arguments, workers):
  """How many processes of each kind; the first one is in charge."""
  if any(argument.rpartition("=")[2] == "parameter_server" for argument in arguments):
    return {"chief": 1, "worker": workers, "ps": 1}
  return {"worker": workers}


def _run(command, jobs, is_asked_to_end):
  """Runs the processes to the end of those that have one; returns the exit code of the first that failed, or 0."""
  ports = _free_ports(sum(jobs.values()))
  cluster = {job: [f"127.0.0.1:{ports.pop()}" for _ in range(count)] for job, count in jobs.items()}
  folder = tempfile.mkdtemp(prefix="workers-")
  processes = []
  for job, index in [(job, index) for job, count in jobs.items() for index in range(count)]:
    task = {"cluster": cluster, "task": {"type": job, "index": index}}
    environment = os.environ | {"TF_CONFIG": json.dumps(task)}
    with open(os.path.join(folder, f"{len(processes)}.log"), "wb") as log:
      output = {"stdout": log, "stderr": subprocess.STDOUT} if processes else {}
      processes.append(subprocess.Popen(command, env=environment, **output))
  logging.info("workers are processes %s; all but the first write to %s", [p.pid for p in processes], folder)
  ending = processes[:1] if "chief" in jobs else processes  # A chief's workers serve until they are ended.
  try:
    while any(process.poll() is None for process in ending):
      failed = [index for index, process in enumerate(processes) if process.poll()]
      if failed or is_asked_to_end:
        if failed and not is_asked_to_end:
          logging.error("worker %d ended with %d: all are ended", failed[0], processes[failed[0]].returncode)
        break
      time.sleep(0.2)
    # Of those that fail together, the first is the cause.
    code = next((process.returncode for process in processes if process.poll()), 0)
    return 0 if is_asked_to_end else code
  finally:
    _end(processes)


def _end(processes):
  for process in processes:
    process.terminate()
  deadline = time.monotonic() + _GRACE
  for process in processes:
    try:
      process.wait(max(0.1, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
      process.kill()
      process.wait()


def _free_ports(count):
  sockets = [socket.socket() for _ in range(count)]
  for opened in sockets:
    opened.bind(("127.0.0.1", 0))
  ports = [opened.getsockname()[1] for opened in sockets]
  for opened in sockets:
    opened.close()
  return ports


if __name__ == "__main__":
  app.run(main)
