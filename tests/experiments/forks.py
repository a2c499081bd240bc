"""Runs experiments one after the other, each in a fork of this process, which has imported TensorFlow.

Each line of standard input is JSON, `[module, folder, flags, environment]`. The output of the run goes to the files
`stdout` and `stderr` of the directory named on the command line; its exit code is printed.
"""

import json
import os
import runpy
import signal
import sys
import traceback

import experiments.run_flags  # noqa: F401  (all experiments import it, which takes seconds)


def main(outputs):
  for line in sys.stdin:
    child = os.fork()
    if not child:
      _run(outputs, *json.loads(line))
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)  # noqa: T201  (the protocol)


def _run(outputs, module, folder, flags, environment):
  os.environ.update(environment)
  signal.alarm(600)
  for descriptor, name in ((1, "stdout"), (2, "stderr")):
    os.dup2(os.open(os.path.join(outputs, name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
  os.chdir(folder)
  sys.argv = [module, *flags]
  code = 0
  try:
    runpy.run_module(module, run_name="__main__", alter_sys=True)
  except SystemExit as end:
    code = end.code or 0
    if not isinstance(code, int):
      print(code, file=sys.stderr)  # noqa: T201  (as Python does)
      code = 1
  except BaseException:
    traceback.print_exc()
    code = 1
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(code)


if __name__ == "__main__":
  main(sys.argv[1])
