"""Functions are timed in turn."""

import time

import pytest

from tfkd.ops.timing import interleaved, median_ratio


def test_turns_alternate_after_one_call_each():
  calls = []
  functions = {name: (lambda name=name: calls.append(name)) for name in "ab"}
  found = interleaved(functions, rounds=2, calls=2)
  assert "".join(calls) == "ab" + 2 * "aabb"
  assert {key: (len(times.wall), len(times.cpu)) for key, times in found.items()} == {"a": (2, 2), "b": (2, 2)}


def test_a_function_that_takes_longer_costs_more():
  found = interleaved({"short": lambda: time.sleep(0.002), "long": lambda: time.sleep(0.02)}, rounds=3, calls=1)
  assert 2 < median_ratio(found["long"].wall, found["short"].wall) < 20
  assert sum(found["long"].cpu) < sum(found["long"].wall) / 2  # Sleep is no work.


def test_the_ratio_is_the_median_of_rounds():
  assert median_ratio([2.0, 3.0, 100.0], [1.0, 2.0, 1.0]) == pytest.approx(2.0)
