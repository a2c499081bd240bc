"""Functions are timed in turns."""

import os
import time

import numpy as np
import pytest

from tfkd.ops.timing import in_new_process, interleaved, median_ratio, peak_bytes


def test_turns_alternate_after_one_call_of_each():
  calls = []
  functions = {name: (lambda name=name: calls.append(name)) for name in "ab"}
  found = interleaved(functions, rounds=2, calls=2)
  assert "".join(calls) == "ab" + 2 * "aabb"
  assert {key: (len(times.wall), len(times.cpu)) for key, times in found.items()} == {"a": (2, 2), "b": (2, 2)}


def test_slower_function_takes_more_time():
  found = interleaved({"short": lambda: time.sleep(0.002), "long": lambda: time.sleep(0.02)}, rounds=3, calls=1)
  assert 2 < median_ratio(found["long"].wall, found["short"].wall) < 20
  assert sum(found["long"].cpu) < sum(found["long"].wall) / 2  # Sleeping takes no processor time.


def test_ratio_is_the_median_over_rounds():
  assert median_ratio([2.0, 3.0, 100.0], [1.0, 2.0, 1.0]) == pytest.approx(2.0)


def test_peak_memory_does_not_fall():
  before = peak_bytes()
  array = np.ones(before // 8 + 10**7)  # More than the process has had in all.
  during = peak_bytes()
  del array
  assert during > before + 4 * 10**7 and peak_bytes() >= during


def test_function_runs_in_another_process():
  assert in_new_process(os.getpid) != os.getpid()
