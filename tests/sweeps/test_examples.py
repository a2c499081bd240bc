"""Batches of a sweep's data sets."""

import numpy as np
import pytest

from tfkd import data
from tfkd.data import house_numbers
from tfkd.sweeps import SweepConfig
from tfkd.sweeps.datasets import DatasetArrays
from tfkd.sweeps.examples import examples_of


@pytest.fixture
def source(tmp_path):
  house_numbers.write(tmp_path, sizes={"train": 96, "test": 40})
  made = DatasetArrays(data.info("house_numbers"), str(tmp_path))
  images, labels = made.train
  order = np.argsort(labels, kind="stable")
  made.train = images[order], labels[order]
  return made


def test_calibration_batches_of_sorted_data_contain_every_class(source):
  images, labels = source.train
  examples = examples_of(source, SweepConfig("house_numbers", batch_size=32), 1)
  batches = list(examples.calibration_batches().take(3).as_numpy_iterator())
  # A third of the data, sorted, has four classes or fewer.
  assert len(set(labels[:32])) < 6
  assert all(len(set(found)) >= 8 for _, found in batches)
  # Every example occurs once, with its own label, scaled as the networks read it.
  found = {(image.tobytes(), label) for batch in batches for image, label in zip(*batch, strict=True)}
  expected = {(image.tobytes(), label) for image, label in zip(images / np.float32(255), labels, strict=True)}
  assert found == expected
