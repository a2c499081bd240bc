"""Batches of a sweep's data sets, and teacher outputs for them."""

import numpy as np
import pytest

from tests.sweeps.small import sweep
from tfkd import data, quantization
from tfkd.objectives import SoftTargets
from tfkd.sweeps import StudentSpec, SweepConfig
from tfkd.sweeps.datasets import DatasetArrays
from tfkd.sweeps.examples import examples_of


@pytest.fixture
def source(data_dir):
  made = DatasetArrays(data.info("house_numbers"), data_dir)
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


@pytest.mark.end_to_end
def test_teacher_outputs_are_computed_once_on_all_replicas(tmp_path, data_dir, monkeypatch):
  runs = sweep(tmp_path, data_dir, strategy="mirrored", augment=True)
  runs.train_teacher()
  original, read = quantization.load, []
  monkeypatch.setattr(quantization, "load", lambda path: read.append(path) or original(path))
  soft = StudentSpec("q3", "soft", "float", 0, (SoftTargets(5.0),))
  runs.run([soft, soft._replace(seed=1)])
  assert read == []  # train_teacher read it for its logits.
  assert all(runs._trainer.strategy.extended.variable_created_in_scope(v) for v in runs.teacher.model.variables)
