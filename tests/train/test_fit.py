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
from tfkd.train import Training, make_strategy
from tfkd.train.fit import fit
from tfkd.train.recipe import optimizer


def _setup(vectors, x=None, **training):
  student = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4)])
  distiller = tfkd.Distiller(lambda inputs: inputs[:, :4], student, [SoftTargets(2.0)])
  distiller.compile(
    optimizer(Training("cifar10", **training), 0.01, 12),
    keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    ["accuracy"],
  )
  features, labels = vectors
  dataset = tf.data.Dataset.from_tensor_slices((features if x is None else x, labels)).batch(8)
  return distiller, student, dataset


def test_tensorboard_gets_every_term_and_the_learning_rate(vectors, tmp_path):
  distiller, student, dataset = _setup(vectors)
  history = fit(
    distiller, student, dataset, dataset, epochs=3, logdir=str(tmp_path / "logs"), checkpoint=str(tmp_path / "c.keras")
  )
  for split in ("train", "validation"):
    events = EventAccumulator(str(tmp_path / "logs" / split)).Reload()
    tags = set(events.Tags()["tensors"])
    names = {"loss", "hard_loss", "soft_targets", "agreement", "accuracy"}
    assert {f"epoch_{name}" for name in names} <= tags
    assert split == "validation" or "epoch_learning_rate" in tags
  assert len(history["val_loss"]) == 3
  assert history["val_loss"][-1] == pytest.approx(distiller.evaluate(dataset, verbose=0)[0], rel=1e-6)
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


def test_nan_after_the_last_step_is_no_result(vectors, tmp_path):
  distiller, student, dataset = _setup(vectors)
  bad = dataset.map(lambda x, y: (x * np.nan, y))
  path = tmp_path / "c.keras"
  with pytest.raises(FloatingPointError, match="loss is nan on the validation data after the last step.*c.keras"):
    fit(distiller, student, dataset, bad, epochs=1, logdir=str(tmp_path / "logs"), checkpoint=str(path))
  assert path.exists()


def test_averaged_weights_stay_and_are_what_was_validated(vectors, tmp_path):
  options = {"epochs": 3, "logdir": str(tmp_path / "logs"), "checkpoint": str(tmp_path / "c.keras")}
  weights = {}
  for ema in (0.0, 0.6):
    keras.utils.set_random_seed(0)
    distiller, student, dataset = _setup(vectors, ema=ema)
    steps = [student.get_weights()]
    remember = keras.callbacks.LambdaCallback(
      on_train_batch_end=lambda *_, student=student, steps=steps: steps.append(student.get_weights())
    )
    if not ema:
      distiller.fit(dataset, epochs=3, callbacks=[remember], verbose=0)
      weights[ema] = steps
    else:
      history = fit(distiller, student, dataset, dataset, **options)
      weights[ema] = student.get_weights()
  # The average of the steps' weights that a run without averaging takes, begun with the first.
  average = weights[0.0][0]
  for step in weights[0.0][1:]:
    average = [0.6 * a + 0.4 * w for a, w in zip(average, step, strict=True)]
  for expected, found, last in zip(average, weights[0.6], weights[0.0][-1], strict=True):
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    assert np.abs(found - last).max() > 1e-4
  assert history["val_loss"][-1] == pytest.approx(distiller.evaluate(dataset, verbose=0)[0], rel=1e-6)


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
