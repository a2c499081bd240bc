"""Timing of several functions in turn, so that what else the machine does falls on all of them alike."""

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
