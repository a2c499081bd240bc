"""Starts an experiment as several workers on this machine, which take every step together.

Each worker has its part of the global batch; the first one writes the results, and alone prints. What the others print
goes to files. Where one of them dies, all are ended, and with --restarts started again: they go on from the last
checkpoint. SIGTERM is passed on.

  python -m experiments.launch --workers=2 -- experiments.svhn.q3 --preset=quick
  python -m experiments.launch --workers=2 --restarts=3 -- experiments.food11.strong --checkpoint_steps=500
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
    code = _run(command, flags.FLAGS.workers, is_asked_to_end)
    if code == 0 or is_asked_to_end:
      break
  sys.exit(code)


def _run(command, workers, is_asked_to_end):
  """Runs the workers to their end; returns the exit code of the first that failed, or 0."""
  cluster = {"worker": [f"127.0.0.1:{port}" for port in _free_ports(workers)]}
  folder = tempfile.mkdtemp(prefix="workers-")
  processes = []
  for index in range(workers):
    task = {"cluster": cluster, "task": {"type": "worker", "index": index}}
    environment = os.environ | {"TF_CONFIG": json.dumps(task)}
    with open(os.path.join(folder, f"{index}.log"), "wb") as log:
      output = {} if index == 0 else {"stdout": log, "stderr": subprocess.STDOUT}
      processes.append(subprocess.Popen(command, env=environment, **output))
  logging.info("workers are processes %s; all but the first write to %s", [p.pid for p in processes], folder)
  try:
    while any(process.poll() is None for process in processes):
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
