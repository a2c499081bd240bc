"""Readers of damaged files raise documented errors or return written content; `tests.reliability.run` tries more."""

import logging

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.reliability.fuzz import try_to_read, valid_file
from tests.reliability.readers import READERS

OPERATIONS = st.lists(
  st.tuples(st.integers(0, 5), st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4
)


@pytest.fixture(scope="module", params=list(READERS))
def valid(request, tmp_path_factory):
  """Returns a reader, its path, the file to damage, and the valid content."""
  return valid_file(request.param, str(tmp_path_factory.mktemp("fuzz")))


@pytest.fixture(scope="module", autouse=True)
def _quiet():
  """Silences the readers' warnings in this module, which would appear for every example."""
  logger = logging.getLogger("absl")
  level = logger.level
  logger.setLevel(logging.ERROR)
  yield
  logger.setLevel(level)


@settings(max_examples=30, deadline=20_000, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(operations=OPERATIONS)
def test_a_damaged_file_is_refused_with_a_documented_error_or_read(valid, operations):
  assert try_to_read(*valid, operations) in ("refused", "read")


def test_an_undamaged_file_is_read(valid):
  assert try_to_read(*valid, []) == "read"
