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


def _peaks():
  before = peak_bytes()
  array = np.ones(10**8, np.uint8)
  during = peak_bytes()
  del array
  return os.getpid(), before, during, peak_bytes()


def test_peak_memory_of_a_new_process_does_not_fall():
  process, before, during, after = in_new_process(_peaks)
  assert process != os.getpid()
  # This process is larger. The kernel's counters are exact to some pages.
  assert 10**7 < before < peak_bytes() and during > before + 9 * 10**7 and after > during - 10**6
