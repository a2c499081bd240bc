"""A fit: the schedule, what TensorBoard is given, and the stop at NaN."""

import glob
import os

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import tfkd
from tests.distiller.small import SPARSE
from tfkd import quantization
from tfkd.objectives import SoftTargets
from tfkd.training import checkpoints, fit, make_optimizer, make_strategy


def _setup(vectors, x=None, **training):
  student = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4)])
  distiller = tfkd.Distiller(lambda inputs: inputs[:, :4], student, [SoftTargets(2.0)])
  distiller.compile(
    make_optimizer("adam", 0.01, 12, **training),
    SPARSE,
    [keras.metrics.SparseCategoricalAccuracy("accuracy")],  # One given by name is traced twice.
  )
  features, labels = vectors
  dataset = tf.data.Dataset.from_tensor_slices((features if x is None else x, labels)).batch(8)
  return distiller, student, dataset


def _fit(distiller, student, dataset, validation, folder, epochs, **options):
  def train(first_step):
    return dataset.repeat().skip(first_step)

  options = {
    "epochs": epochs,
    "steps_per_epoch": len(dataset),
    "log_dir": folder / "logs",
    "checkpoint_dir": folder / "c",
  } | options
  history, _ = fit(distiller, train, validation, **options)
  return history


def test_tensorboard_logs_every_term_and_the_learning_rate(vectors, tmp_path):
  distiller, student, dataset = _setup(vectors)
  history = _fit(distiller, student, dataset, dataset, tmp_path, 3)
  for split in ("train", "validation"):
    events = EventAccumulator(str(tmp_path / "logs" / split)).Reload()
    tags = set(events.Tags()["tensors"])
    names = {"loss", "hard_loss", "soft_targets", "agreement", "accuracy"}
    assert {f"epoch_{name}" for name in names} <= tags
    assert split == "validation" or "epoch_learning_rate" in tags
  assert len(history["val_loss"]) == 3
  assert history["val_loss"][-1] == pytest.approx(distiller.evaluate(dataset, verbose=0)[0], rel=1e-6)
  assert os.listdir(tmp_path / "c") == ["best.keras"]


def test_nan_loss_stops_training_at_its_step_and_the_best_model_is_kept(vectors, tmp_path):
  distiller, student, dataset = _setup(vectors)
  before = student.get_weights()
  weights = np.ones(24, np.float32)
  weights[17] = np.nan
  dataset = tf.data.Dataset.from_tensor_slices((*vectors, weights)).batch(8)
  path = str(tmp_path / "c" / "best.keras")
  with pytest.raises(FloatingPointError, match=r"loss is nan at step 3 \(batch 2 of its epoch\).*best.keras"):
    _fit(distiller, student, dataset, dataset, tmp_path, 3)
  assert np.isnan(student.get_weights()[0]).all()
  for a, b in zip(before, quantization.load(path).get_weights(), strict=True):
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("where", ["inputs", "labels", "teacher outputs"])
def test_non_finite_value_is_reported_with_its_position(vectors, tmp_path, where):
  distiller, student, _ = _setup(vectors)
  accuracy = keras.metrics.CategoricalAccuracy("accuracy")
  distiller.compile("sgd", keras.losses.CategoricalCrossentropy(from_logits=True), [accuracy])
  in_teacher = tf.Variable(0.0)
  if where == "teacher outputs":
    distiller.teacher = lambda inputs: tf.tensor_scatter_nd_update(inputs[:, :4], [[3, 2]], [in_teacher])
  for value in (np.nan, np.inf, -np.inf):
    x, y = vectors[0].copy(), np.eye(4, dtype=np.float32)[vectors[1]]
    if where == "inputs":
      x[19, 2] = value
    elif where == "labels":
      y[19, 2] = value
    else:
      in_teacher.assign(value)
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
    words = rf"^{where} contain {'NaN' if np.isnan(value) else value} at index \[3, 2\]$"
    with pytest.raises(FloatingPointError, match=words):
      _fit(distiller, student, dataset, dataset, tmp_path / str(value), 1)
    assert np.isfinite(student.get_weights()[0]).all()


def test_best_epoch_is_kept(vectors, tmp_path):
  distiller, student, dataset = _setup(vectors)
  # The accuracy rises at first and falls later.
  rate = keras.optimizers.schedules.PiecewiseConstantDecay([8], [0.5, -20.0])
  distiller.compile(keras.optimizers.SGD(rate), SPARSE, ["accuracy"])
  history = _fit(distiller, student, dataset, dataset, tmp_path, 4)
  best = quantization.load(str(tmp_path / "c" / "best.keras"))
  best.compile(loss=SPARSE, metrics=["accuracy"])
  accuracies = history["val_accuracy"]
  assert best.evaluate(dataset, verbose=0)[1] == pytest.approx(max(accuracies))
  assert accuracies[-1] < max(accuracies) != accuracies[0]


def test_best_epoch_before_a_kill_remains_the_best(vectors, tmp_path, monkeypatch):
  class Killed(Exception):
    pass

  def network():
    distiller, student, dataset = _setup(vectors)
    # Three epochs of learning, and one that destroys them.
    rate = keras.optimizers.schedules.PiecewiseConstantDecay([8], [0.5, -20.0])
    distiller.compile(keras.optimizers.SGD(rate), SPARSE, [keras.metrics.SparseCategoricalAccuracy("accuracy")])
    return distiller, student, dataset, dataset, tmp_path, 4

  def on_epoch_end(self, epoch, logs=None):
    original(self, epoch, logs)
    if epoch == 2:
      raise Killed

  original = checkpoints.Checkpoints.on_epoch_end
  with monkeypatch.context() as patch:
    patch.setattr(checkpoints.Checkpoints, "on_epoch_end", on_epoch_end)
    with pytest.raises(Killed):
      _fit(*network(), checkpoint_steps=3)
  before = quantization.load(str(tmp_path / "c" / "best.keras")).get_weights()
  accuracies = _fit(*network(), checkpoint_steps=3)["val_accuracy"]
  assert len(accuracies) == 4 and accuracies[3] < max(accuracies[:3])
  best = quantization.load(str(tmp_path / "c" / "best.keras"))
  for a, b in zip(before, best.get_weights(), strict=True):
    np.testing.assert_array_equal(a, b)
  best.compile(loss=SPARSE, metrics=["accuracy"])
  assert best.evaluate(*vectors, verbose=0)[1] == pytest.approx(max(accuracies))


def test_nan_after_the_last_step_raises(vectors, tmp_path):
  distiller, student, dataset = _setup(vectors)
  bad = dataset.map(lambda x, y: (x * np.nan, y))
  with pytest.raises(FloatingPointError, match="loss is nan on the validation data after the last step.*best.keras"):
    _fit(distiller, student, dataset, bad, tmp_path, 1)
  assert (tmp_path / "c" / "best.keras").exists()


def test_averaged_weights_are_validated_and_remain_after_training(vectors, tmp_path):
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
      history = _fit(distiller, student, dataset, dataset, tmp_path, 3)
      weights[ema] = student.get_weights()
  # The moving average of the weights in a run without averaging, started from the initial weights.
  average = weights[0.0][0]
  for step in weights[0.0][1:]:
    average = [0.6 * a + 0.4 * w for a, w in zip(average, step, strict=True)]
  for expected, found, last in zip(average, weights[0.6], weights[0.0][-1], strict=True):
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    assert np.abs(found - last).max() > 1e-4
  assert history["val_loss"][-1] == pytest.approx(distiller.evaluate(dataset, verbose=0)[0], rel=1e-6)


def test_repeated_fit_replaces_its_curves(vectors, tmp_path):
  distiller, student, dataset = _setup(vectors)
  for _ in range(2):
    _fit(distiller, student, dataset, dataset, tmp_path, 1)
  assert len(glob.glob(str(tmp_path / "logs" / "train" / "*tfevents*"))) == 1


def test_strategies():
  assert make_strategy("auto").num_replicas_in_sync == 1
  assert make_strategy("one_device").num_replicas_in_sync == 1
  assert make_strategy("mirrored").num_replicas_in_sync == 4
  with pytest.raises(
    ValueError, match="unknown strategy 'tpu9': expected one of auto, one_device, mirrored, multi_worker"
  ):
    make_strategy("tpu9")
