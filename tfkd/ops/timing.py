"""Measures the time and memory that functions take."""

import concurrent.futures
import multiprocessing
import sys
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np


class Times(NamedTuple):
  """Seconds per call, one number for each round."""

  wall: list[float]
  """Elapsed time."""
  cpu: list[float]
  """Processor time of all threads of this process; the load of other processes does not count."""


def interleaved(functions: Mapping[Hashable, Callable[[], Any]], rounds: int, calls: int = 1) -> dict[Hashable, Times]:
  """Times functions in turns, so that the load of other processes affects all of them equally.

  Args:
    functions: function without arguments by key. It must return only when its work is done. Each is called once before
      the first round, so that tracing is not measured.
    rounds: number of turns of each function.
    calls: number of calls per turn.

  Returns:
    `Times` by key, in seconds.
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


def median_ratio(seconds: Sequence[float], baseline: Sequence[float]) -> float:
  """Computes the median over rounds of the ratio of two functions' times in the same round.

  Args:
    seconds: one number per round, as in `Times`.
    baseline: the other function's times in the same rounds.

  Returns:
    `seconds` over `baseline`, dimensionless.
  """
  return float(np.median(np.divide(seconds, baseline)))


def in_new_process(function: Callable[..., Any], *arguments: Any) -> Any:
  """Calls a function in a fresh process and returns its result.

  The peak memory of a process never falls and imports are cached, so that both must be measured in a new one.

  Args:
    function: function of a module, picklable.
    *arguments: picklable arguments.
  """
  with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
    return pool.submit(function, *arguments).result()


def peak_bytes() -> int:
  """Returns the largest resident memory of this process so far, in bytes."""
  if sys.platform == "linux":
    return status_bytes("VmHWM")  # The maximum of `getrusage` is inherited from the parent process.
  import resource  # Not available on Windows.

  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def status_bytes(field: str) -> int:
  """Returns a memory size from `/proc/self/status` in bytes, for example "VmHWM" or "VmSize"; Linux only."""
  with open("/proc/self/status", encoding="ascii") as file:
    return next(1024 * int(line.split()[1]) for line in file if line.startswith(f"{field}:"))
