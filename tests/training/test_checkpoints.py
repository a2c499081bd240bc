"""A killed fit resumes and ends bit-identical to an uninterrupted one."""

import os
import shutil
import signal
import threading
import time

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from tests.distiller.small import SPARSE
from tfkd import Distiller, data, quantization
from tfkd.data.augment import padded_crop
from tfkd.objectives import Hint, SoftTargets
from tfkd.training import checkpoints, fit, make_optimizer

RNG = np.random.default_rng(0)
IMAGES, LABELS = RNG.integers(0, 256, (44, 32, 32, 3)).astype(np.uint8), np.arange(44, dtype=np.int32) % 10
STEPS, EPOCHS = 6, 3  # The last batch of an epoch has four images.


class Killed(Exception):
  pass


def _network():
  """Every kind of layer that has a state; a larger network would only take longer to trace."""
  layers = keras.layers
  x = inputs = keras.Input((32, 32, 3))
  for i in (1, 2):
    x = layers.Conv2D(4, 3, 4, "same", use_bias=False, name=f"conv{i}")(x)
    x = layers.ReLU(name=f"relu{i}")(layers.BatchNormalization(name=f"bn{i}")(x))
  return keras.Model(inputs, layers.Dense(10, name="logits")(layers.Flatten()(x)))


def _compiled(scheme="float", precision="float32", hints=False, optimizer="adam", metric_by_name=False, **options):
  keras.utils.set_random_seed(0)
  teacher = _network()
  keras.mixed_precision.set_global_policy(precision)
  try:
    student = _network()
  finally:
    keras.mixed_precision.set_global_policy("float32")
  if scheme != "float":
    student = quantization.quantize(
      student, scheme, calibration_data=data.batches(IMAGES, LABELS, 8, scale_pixels=True)
    )
  objectives = [SoftTargets(4.0)]
  if hints:
    objectives.append(Hint("relu2", "relu2", connector="conv1x1"))
  distiller = Distiller(teacher, student, objectives)
  made = make_optimizer(optimizer, 0.01, STEPS * EPOCHS, **options)
  if precision == "mixed_float16":
    made = keras.mixed_precision.LossScaleOptimizer(made, initial_scale=2.0**20, dynamic_growth_steps=3)
  # A metric given by name has no variables before its first step, which is traced twice then.
  distiller.compile(
    made, SPARSE, ["accuracy" if metric_by_name else keras.metrics.SparseCategoricalAccuracy("accuracy")]
  )
  return distiller


def _fit(distiller, folder, every_steps=1, **options):
  def train(first_step):
    return data.batches(
      IMAGES,
      LABELS,
      8,
      scale_pixels=True,
      shuffle_seed=1,
      first_step=first_step,
      transforms=[data.Augment(padded_crop)],
    )

  history, seconds = fit(
    distiller, train, data.batches(IMAGES, LABELS, 22, scale_pixels=True),
    epochs=EPOCHS, steps_per_epoch=STEPS, log_dir=folder / "logs", checkpoint_dir=folder / "c",
    checkpoint_steps=every_steps, **options,
  )  # fmt: skip
  assert seconds > 0
  return history


def _killed(monkeypatch, distiller, folder, step, every_steps=1):
  """A fit that is killed after `step` steps."""
  with monkeypatch.context() as patch:
    original = checkpoints.Checkpoints.on_train_batch_end

    def kill(self, batch, logs=None):
      original(self, batch, logs)
      if self.epoch * STEPS + batch + 1 == step:
        raise Killed

    patch.setattr(checkpoints.Checkpoints, "on_train_batch_end", kill)
    with pytest.raises(Killed):
      _fit(distiller, folder, every_steps)


def _variables(distiller):
  parts = (distiller.student, *distiller.objectives)
  variables = [v for part in parts for v in part.variables] + list(distiller.optimizer.variables)
  scale = getattr(distiller.optimizer, "_loss_scale", None)  # Its variables are not among those of the optimizer.
  return variables + ([scale.current_loss_scale, scale.counter] if scale else [])


def _state(distiller):
  return [v.numpy() for v in _variables(distiller)]


class _Reusable:
  """A traced Distiller that takes the place of a new one: its variables are set back to their first values."""

  def __init__(self, **options):
    self._distiller = _compiled(**options)
    optimizer = self._distiller.optimizer
    getattr(optimizer, "inner_optimizer", optimizer).build(self._distiller.trainable_variables)
    self._start = _state(self._distiller)

  def reset(self):
    for variable, value in zip(_variables(self._distiller), self._start, strict=True):
      variable.assign(value)
    return self._distiller


@pytest.fixture(scope="module")
def plain():
  return _Reusable()


@pytest.fixture(scope="module")
def whole(plain, tmp_path_factory):
  """A fit that was not interrupted: its state and its history."""
  distiller = plain.reset()
  history = _fit(distiller, tmp_path_factory.mktemp("whole"), None)
  return _state(distiller), history


OPTIONS = [
  {"metric_by_name": True},
  {"optimizer": "sgd", "ema": 0.5, "weight_decay": 0.1},
  {"hints": True},
  {"scheme": "w8a8"},
  {"scheme": "w4a8"},
  {"scheme": "w2a1"},
  {"precision": "mixed_float16"},
  {"precision": "mixed_bfloat16"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_killed_fit_resumes_to_the_weights_of_an_uninterrupted_one(tmp_path, monkeypatch, request, options):
  if "metric_by_name" in options:  # A new Distiller for each fit.
    (state, expected), processes = request.getfixturevalue("whole"), lambda: _compiled(**options)
  else:
    processes = _Reusable(**options).reset
    distiller = processes()
    expected = _fit(distiller, tmp_path / "whole", None)
    state = _state(distiller)
  # The last checkpoints are those after step 4 of 6, at the end of the epoch, and after step 5 of the next one.
  for step, every_steps in ((4, 1), (7, 2), (12, 5)):
    _killed(monkeypatch, processes(), tmp_path / "killed", step, every_steps)
  distiller = _compiled(**options)
  assert _fit(distiller, tmp_path / "killed", 1) == expected
  for a, b in zip(state, _state(distiller), strict=True):
    np.testing.assert_array_equal(a, b)


def test_completed_steps_are_not_repeated(tmp_path, monkeypatch, plain):
  _killed(monkeypatch, plain.reset(), tmp_path, 10, 4)
  steps = []
  with monkeypatch.context() as patch:
    original = checkpoints.Checkpoints.on_train_batch_end
    patch.setattr(checkpoints.Checkpoints, "on_train_batch_end", lambda s, *a: steps.append(a[0]) or original(s, *a))
    _fit(plain.reset(), tmp_path)
  assert steps == [2, 3, 4, 5, *range(6)]  # From step 8 of 18 on, the second of the second epoch.


@pytest.fixture(scope="module")
def killed_at_11(plain, tmp_path_factory):
  """Directory of a fit that was killed after 11 steps; tests must not change it."""
  folder = tmp_path_factory.mktemp("killed")
  with pytest.MonkeyPatch.context() as patch:
    _killed(patch, plain.reset(), folder, 11)
  return folder


def test_the_last_two_checkpoints_and_the_best_student_are_kept(killed_at_11):
  assert sorted(os.listdir(killed_at_11 / "c")) == ["000001-000000004", "000001-000000005", "best.keras"]


@pytest.mark.parametrize("file", ["manifest.json", "variables.index", "variables.data-00000-of-00001"])
@pytest.mark.parametrize("damage", ["truncated", "flipped", "gone"])
def test_damaged_checkpoint_is_reported_and_the_previous_one_restored(
  tmp_path, caplog, plain, whole, killed_at_11, file, damage
):
  shutil.copytree(killed_at_11, tmp_path, dirs_exist_ok=True)
  path = tmp_path / "c" / "000001-000000005" / file
  content = bytearray(path.read_bytes())
  if damage == "gone":
    path.unlink()
  elif damage == "truncated":
    path.write_bytes(content[: len(content) // 2])
  else:
    content[len(content) // 2] ^= 16
    path.write_bytes(content)
  state, history = whole
  distiller = plain.reset()
  assert _fit(distiller, tmp_path) == history
  assert f"{path.parent} is damaged and skipped" in caplog.text and caplog.text.count("damaged and skipped") == 1
  for a, b in zip(state, _state(distiller), strict=True):
    np.testing.assert_array_equal(a, b)


def test_checkpoint_of_another_model_is_ignored(tmp_path, monkeypatch, caplog, plain):
  _killed(monkeypatch, plain.reset(), tmp_path, 3)
  history = _fit(_compiled(hints=True), tmp_path)
  assert caplog.text.count("damaged and skipped") == 2 and len(history["loss"]) == EPOCHS


def test_sigterm_writes_a_checkpoint_and_exits_with_0(tmp_path, monkeypatch, plain, whole):
  handler = signal.getsignal(signal.SIGTERM)
  original = checkpoints.Checkpoints.on_train_batch_end

  def ask(self, batch, logs=None):
    if self.epoch == 1 and batch == 2:
      os.kill(os.getpid(), signal.SIGTERM)
      time.sleep(0.05)
    original(self, batch, logs)

  with monkeypatch.context() as patch:
    patch.setattr(checkpoints.Checkpoints, "on_train_batch_end", ask)
    with pytest.raises(SystemExit) as ended:
      _fit(plain.reset(), tmp_path, None)
  assert ended.value.code == 0 and signal.getsignal(signal.SIGTERM) is handler
  assert sorted(os.listdir(tmp_path / "c")) == ["000001-000000003", "best.keras"]
  assert _fit(plain.reset(), tmp_path, None) == whole[1]


def test_checkpoints_at_time_intervals(tmp_path, monkeypatch, plain):
  _killed(monkeypatch, plain.reset(), tmp_path, 3, None)
  assert os.listdir(tmp_path / "c") == ["best.keras"]
  with pytest.raises(Killed):
    original = checkpoints.Checkpoints.on_train_batch_end

    def kill(self, batch, logs=None):
      original(self, batch, logs)
      raise Killed

    monkeypatch.setattr(checkpoints.Checkpoints, "on_train_batch_end", kill)
    _fit(plain.reset(), tmp_path, None, checkpoint_minutes=0.0)
  assert "000000-000000001" in os.listdir(tmp_path / "c")


def test_fit_outside_the_main_thread_installs_no_signal_handlers(tmp_path, plain):
  found, distiller = [], plain.reset()
  thread = threading.Thread(target=lambda: found.append(_fit(distiller, tmp_path)))
  thread.start()
  thread.join()
  assert len(found[0]["loss"]) == EPOCHS


@pytest.mark.parametrize("in_main_thread", [True, False])
def test_second_fit_starts_from_the_first_epoch(tmp_path, plain, in_main_thread):
  distiller = plain.reset()
  if in_main_thread:
    _fit(distiller, tmp_path)
  else:
    thread = threading.Thread(target=_fit, args=(distiller, tmp_path))
    thread.start()
    thread.join()
  history = distiller.fit(data.batches(IMAGES, LABELS, 22, scale_pixels=True), epochs=2, verbose=0).history
  assert len(history["loss"]) == 2


def test_order_of_examples_depends_only_on_seed_epoch_and_step():
  def labels(first_step, seed=5):
    dataset = data.batches(
      IMAGES,
      LABELS,
      8,
      scale_pixels=True,
      shuffle_seed=seed,
      first_step=first_step,
      transforms=[data.Augment(padded_crop)],
    )
    return [(x, y) for x, y in dataset.take(2 * STEPS).as_numpy_iterator()]

  whole, later = labels(0), labels(4)
  for (x, y), (a, b) in zip(whole[4:], later, strict=False):
    np.testing.assert_array_equal(x, a)
    np.testing.assert_array_equal(y, b)
  epochs = [np.concatenate([y for _, y in whole[i : i + STEPS]]) for i in (0, STEPS)]
  assert all(sorted(epoch) == sorted(LABELS) for epoch in epochs) and (epochs[0] != epochs[1]).any()
  assert [len(y) for _, y in whole] == [8, 8, 8, 8, 8, 4] * 2
  assert (np.concatenate([y for _, y in labels(0, 6)[:STEPS]]) != epochs[0]).any()


def test_every_order_is_equally_likely():
  orders = []
  for seed in range(6):
    rows = [
      i.tolist() for i, _ in data.index_batches(3, 2, shuffle_seed=seed, first_step=0).take(200).as_numpy_iterator()
    ]
    orders += [(*rows[step], *rows[step + 1]) for step in range(0, 200, 2)]
  counts = np.array([orders.count(order) for order in set(orders)])
  assert len(counts) == 6 and (np.abs(counts - 100) < 40).all()  # Four deviations.
  assert int(data.index_batches(3, 2).cardinality()) == 2
  assert data.index_batches(3, 2, first_step=1).cardinality() == tf.data.INFINITE_CARDINALITY


def test_workers_together_read_every_batch_once():
  def orders(**options):
    return [
      tuple(i) for i, _ in data.index_batches(7, 2, shuffle_seed=1, **options).take(12 // options.get("stride", 1))
    ]

  together = orders(first_step=3)
  assert [orders(first_step=3 + worker, stride=3) for worker in range(3)] == [together[w::3] for w in range(3)]
