"""Starts a script as several workers on this machine, which take every training step together.

Each worker processes its part of the global batch. The first worker writes the results and prints; the output of the
others goes to files. If a worker fails, all are terminated; with --restarts they are started again, and resume from the
last checkpoint. SIGTERM is passed on to all workers.

With --strategy=parameter_server among the flags of the script, there are a chief, which writes and prints, the workers,
and one server for the variables. The script is a module that accepts the flag --strategy and passes it to
`tfkd.training.make_strategy`.

  python -m tfkd.training.launch --workers=2 -- my_package.train --batch_size=256
  python -m tfkd.training.launch --workers=2 --restarts=3 -- my_package.train
  python -m tfkd.training.launch --workers=2 -- my_package.train --strategy=parameter_server
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

from absl import app, flags, logging

flags.DEFINE_integer("workers", 2, "Number of worker processes.", lower_bound=1)
flags.DEFINE_integer("restarts", 0, "Maximum number of restarts after a worker failed.", lower_bound=0)

_GRACE = 10.0  # Seconds until SIGKILL: a worker that waits for others does not handle SIGTERM.


def main(argv: Sequence[str]) -> None:
  """Runs the workers, and exits with the code of the first one that failed, or 0.

  Args:
    argv: command line as absl passes it: this program, the module to run, and its flags.
  """
  if len(argv) < 2 or argv[1].startswith("-"):
    raise app.UsageError("expected -- <module> <its flags>, for example -- my_package.train --batch_size=256.")
  logging.set_verbosity(logging.INFO)
  module, *rest = argv[1:]
  if not any(flag.startswith("--strategy") for flag in rest):
    rest.append("--strategy=multi_worker")
  command = [sys.executable, "-m", module, *rest]
  stop_requests = []
  signal.signal(signal.SIGTERM, lambda *_: stop_requests.append(True))
  for attempt in range(flags.FLAGS.restarts + 1):
    if attempt:
      logging.info("start %d of %d", attempt + 1, flags.FLAGS.restarts + 1)
    code = _run(command, _jobs(rest, flags.FLAGS.workers), stop_requests)
    if code == 0 or stop_requests:
      break
  sys.exit(code)


def _jobs(arguments, workers):
  """Returns the number of processes of each job; the first process is the chief."""
  if any(argument.rpartition("=")[2] == "parameter_server" for argument in arguments):
    return {"chief": 1, "worker": workers, "ps": 1}
  return {"worker": workers}


def _run(command, jobs, stop_requests):
  """Runs the processes until those that end by themselves have ended; returns the first exit code that is not 0."""
  ports = _free_ports(sum(jobs.values()))
  cluster = {job: [f"127.0.0.1:{ports.pop()}" for _ in range(count)] for job, count in jobs.items()}
  directory = tempfile.mkdtemp(prefix="workers-")
  processes = []
  for job, index in [(job, index) for job, count in jobs.items() for index in range(count)]:
    task = {"cluster": cluster, "task": {"type": job, "index": index}}
    environment = os.environ | {"TF_CONFIG": json.dumps(task)}
    with open(os.path.join(directory, f"{len(processes)}.log"), "wb") as log:
      output = {"stdout": log, "stderr": subprocess.STDOUT} if processes else {}
      processes.append(subprocess.Popen(command, env=environment, **output))
  logging.info("workers are processes %s; all but the first write to %s", [p.pid for p in processes], directory)
  ending = processes[:1] if "chief" in jobs else processes  # Workers of a chief run until they are terminated.
  try:
    while any(process.poll() is None for process in ending):
      failed = [index for index, process in enumerate(processes) if process.poll()]
      if failed or stop_requests:
        if failed and not stop_requests:
          logging.error(
            "worker %d exited with code %d: terminating all workers", failed[0], processes[failed[0]].returncode
          )
        break
      time.sleep(0.2)
    # If several fail, the first one is taken for the cause.
    code = next((process.returncode for process in processes if process.poll()), 0)
    return 0 if stop_requests else code
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
