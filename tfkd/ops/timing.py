"""What functions cost: time, taken in turn so that what else the machine does falls on all alike, and memory."""

import concurrent.futures
import multiprocessing
import sys
import time
from typing import NamedTuple

import numpy as np


class Times(NamedTuple):
  """Seconds per call, one number for each round."""

  wall: list
  cpu: list
  """Of all threads of the process: other processes take no part in them."""


def interleaved(functions, rounds, calls):
  """Times functions in turn.

  Args:
    functions: dict from any key to a function without arguments that returns when its work is done. Each is called once
      beforehand, to be traced.
    rounds: how often each has its turn.
    calls: calls of a turn.

  Returns:
    dict from key to `Times`.
  """
  for function in functions.values():
    function()
  times = {key: Times([], []) for key in functions}
  for _ in range(rounds):
    for key, function in functions.items():
      wall, cpu = time.perf_counter(), time.process_time()
      for _ in range(calls):
        function()
      times[key].wall.append((time.perf_counter() - wall) / calls)
      times[key].cpu.append((time.process_time() - cpu) / calls)
  return times


def median_ratio(seconds, baseline):
  """Median over rounds of the ratio of two functions' times in the same round.

  Args:
    seconds, baseline: lists as `interleaved` gives them.
  """
  return float(np.median(np.divide(seconds, baseline)))


def in_new_process(function, *arguments):
  """What a function returns in a process of its own: peak memory never falls, and modules are imported once."""
  with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
    return pool.submit(function, *arguments).result()


def peak_bytes():
  """Largest resident memory that this process had."""
  if sys.platform == "linux":
    # Not `getrusage`, whose maximum a process inherits from the one that started it.
    with open("/proc/self/status", encoding="ascii") as file:
      return next(1024 * int(line.split()[1]) for line in file if line.startswith("VmHWM:"))
  import resource  # Windows lacks it.

  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
