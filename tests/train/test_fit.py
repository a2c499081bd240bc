"""A fit: the schedule, what TensorBoard is given, and the stop at NaN."""

import glob
import os

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import tfkd
from tfkd import quantization
from tfkd.objectives import SoftTargets
from tfkd.train import make_strategy
from tfkd.train.fit import fit, optimizer


def _setup(vectors, x=None):
  student = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4)])
  distiller = tfkd.Distiller(lambda inputs: inputs[:, :4], student, [SoftTargets(2.0)])
  distiller.compile(optimizer(0.01, 12), keras.losses.SparseCategoricalCrossentropy(from_logits=True), ["accuracy"])
  features, labels = vectors
  dataset = tf.data.Dataset.from_tensor_slices((features if x is None else x, labels)).batch(8)
  return distiller, student, dataset


def test_learning_rate_rises_and_falls_to_zero():
  schedule = keras.optimizers.schedules.deserialize(optimizer(0.01, 100).get_config()["learning_rate"])
  rates = [float(schedule(step)) for step in range(101)]
  assert rates[0] == 0 and max(rates) == pytest.approx(0.01) and rates[-1] == pytest.approx(0, abs=1e-9)
  assert np.argmax(rates) == 5


def test_tensorboard_gets_every_term_and_the_learning_rate(vectors, tmp_path):
  distiller, student, dataset = _setup(vectors)
  logs = fit(
    distiller, student, dataset, dataset, epochs=3, logdir=str(tmp_path / "logs"), checkpoint=str(tmp_path / "c.keras")
  )
  for split in ("train", "validation"):
    events = EventAccumulator(str(tmp_path / "logs" / split)).Reload()
    tags = set(events.Tags()["tensors"])
    names = {"loss", "hard_loss", "soft_targets", "agreement", "accuracy"}
    assert {f"epoch_{name}" for name in names} <= tags
    assert split == "validation" or "epoch_learning_rate" in tags
  assert logs["val_loss"] == pytest.approx(distiller.evaluate(dataset, verbose=0)[0], rel=1e-6)
  assert not os.path.exists(tmp_path / "c.keras")


def test_nan_stops_at_its_step_and_keeps_the_last_good_model(vectors, tmp_path):
  distiller, student, dataset = _setup(vectors)
  x = np.concatenate([vectors[0]] * 2)
  x[43] = np.nan  # In the last batch of six, of eight examples each.
  y = np.concatenate([vectors[1]] * 2)
  dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
  before = student.get_weights()
  path = str(tmp_path / "c.keras")
  with pytest.raises(FloatingPointError, match=r"loss is nan at step 6 \(batch 5 of its epoch\).*c.keras"):
    fit(distiller, student, dataset, dataset, epochs=3, logdir=str(tmp_path / "logs"), checkpoint=path)
  assert np.isnan(student.get_weights()[0]).all()
  for a, b in zip(before, quantization.load(path).get_weights(), strict=True):
    np.testing.assert_array_equal(a, b)


def test_a_repeated_fit_starts_its_curves_anew(vectors, tmp_path):
  for _ in range(2):
    distiller, student, dataset = _setup(vectors)
    fit(
      distiller, student, dataset, dataset, epochs=1, logdir=str(tmp_path / "l"), checkpoint=str(tmp_path / "c.keras")
    )
  assert len(glob.glob(str(tmp_path / "l" / "train" / "*tfevents*"))) == 1


def test_strategies():
  assert make_strategy("auto").num_replicas_in_sync == 1
  assert make_strategy("one_device").num_replicas_in_sync == 1
  assert make_strategy("mirrored").num_replicas_in_sync == 2
  with pytest.raises(ValueError, match="unknown strategy 'tpu9': expected one of auto, one_device, mirrored"):
    make_strategy("tpu9")
