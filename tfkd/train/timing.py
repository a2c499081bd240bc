"""Timing of several functions in turn, so that what else the machine does falls on all of them alike."""

import time

import numpy as np


def interleaved(functions, rounds, calls):
  """Times functions in turn.

  Args:
    functions: dict from any key to a function without arguments that returns when its work is done. Each is called once
      beforehand, to be traced.
    rounds: how often each has its turn.
    calls: calls of a turn.

  Returns:
    dict from key to list of float, seconds per call, one for each round.
  """
  for function in functions.values():
    function()
  seconds = {key: [] for key in functions}
  for _ in range(rounds):
    for key, function in functions.items():
      start = time.perf_counter()
      for _ in range(calls):
        function()
      seconds[key].append((time.perf_counter() - start) / calls)
  return seconds


def median_ratio(seconds, baseline):
  """Median over rounds of the ratio of two functions' times in the same round.

  Args:
    seconds, baseline: lists as `interleaved` gives them.
  """
  return float(np.median(np.divide(seconds, baseline)))
