"""Data of the tests of sweeps."""

import pytest

from tfkd.data import house_numbers


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
  """A directory of drawn house numbers, 96 for training and 40 for testing."""
  directory = tmp_path_factory.mktemp("data")
  house_numbers.write(directory, sizes={"train": 96, "test": 40})
  return str(directory)
