"""The batches of a sweep's examples."""

import numpy as np
import pytest

from tfkd.data import house_numbers
from tfkd.sweeps import SweepConfig
from tfkd.sweeps.examples import Examples


@pytest.fixture
def examples(tmp_path):
  house_numbers.write(tmp_path, sizes={"train": 96, "test": 40})
  made = Examples(SweepConfig("house_numbers", data_dir=str(tmp_path), batch_size=32), 1)
  images, labels = made.train
  order = np.argsort(labels, kind="stable")
  made.train = images[order], labels[order]
  return made


def test_calibration_sees_every_class_of_sorted_data(examples):
  images, labels = examples.train
  batches = list(examples.calibration_batches().take(3).as_numpy_iterator())
  # A third of the data, sorted, has four classes or fewer.
  assert len(set(labels[:32])) < 6
  assert all(len(set(found)) >= 8 for _, found in batches)
  # All of them once, with their own labels, scaled as the networks read them.
  found = {(image.tobytes(), label) for batch in batches for image, label in zip(*batch, strict=True)}
  expected = {(image.tobytes(), label) for image, label in zip(images / np.float32(255), labels, strict=True)}
  assert found == expected
