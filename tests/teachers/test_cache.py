"""Caches of teacher outputs are complete, resumed after interruptions, and refused with other teachers or data."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import zlib
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import tfkd
from tests.distiller.small import compiled
from tfkd import data
from tfkd import objectives as o
from tfkd.data.augment import padded_crop
from tfkd.features import ModelOutputs
from tfkd.preprocessing import Preprocessing
from tfkd.storage.digests import from_checked_json, to_checked_json
from tfkd.teachers import HALVES, CachedTeacher, Ensemble, Frozen, Precomputed, cache
from tfkd.teachers import cache_writer as writing

layers = keras.layers
IMAGES = np.random.default_rng(0).integers(0, 256, (50, 16, 16, 3)).astype(np.uint8)
LABELS = np.arange(50) % 4


def _cnn(name="teacher", channels=8):
  inputs = keras.Input((16, 16, 3))
  x = layers.Conv2D(channels, 3, strides=2, activation="relu", name="relu0")(inputs)
  x = layers.Conv2D(channels, 3, strides=2, activation="relu", name="relu1")(x)
  return keras.Model(inputs, layers.Dense(4)(layers.GlobalAveragePooling2D()(x)), name=name)


def _in_order(batch_size=16, **options):
  return data.batches(IMAGES, LABELS, batch_size, scale_pixels=True, **options)


@pytest.fixture
def teacher():
  return _cnn()


def test_stores_logits_and_features_in_the_order_of_the_data(teacher, tmp_path):
  cached = cache(teacher, _in_order(), tmp_path / "deep" / "train", layers=["relu1", "relu0"])
  logits, features = Frozen(teacher)(IMAGES / np.float32(255), ["relu0", "relu1"])
  assert len(cached) == 50 and cached.outputs[0].dtype == np.float32
  np.testing.assert_allclose(cached.outputs[0], logits, rtol=1e-5, atol=1e-6)
  for name, feature in features.items():
    np.testing.assert_allclose(cached.outputs[1][name], feature, rtol=1e-5, atol=1e-6)
  assert {k: tuple(s) for k, s in cached.feature_shapes(["relu0"]).items()} == {"relu0": (None, 7, 7, 8)}
  assert sorted(os.listdir(tmp_path / "deep")) == [".train.lock", "train"]


def test_half_precision_takes_half_the_space(teacher, tmp_path):
  paths = {dtype: tmp_path / dtype for dtype in ("float16", "float32")}
  for dtype, path in paths.items():
    cache(teacher, _in_order(), path, dtype=dtype)
  sizes = {dtype: os.path.getsize(path / "outputs.bin") for dtype, path in paths.items()}
  assert sizes == {"float16": 50 * 4 * 2, "float32": 50 * 4 * 4}
  half, full = (CachedTeacher(path).outputs for path in paths.values())
  np.testing.assert_allclose(half, full, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("views", [None, 3])
def test_steps_equal_those_with_the_teacher_online(teacher, tmp_path, views):
  options = {"transforms": [data.Augment(padded_crop, views)]} if views else {}
  histories = {}
  for source in ("online", "float32", "float16"):
    used, inputs = teacher, IMAGES
    if source != "online":
      used = cache(teacher, _in_order(20, **options), tmp_path / source, layers=["relu0", "relu1"], dtype=source)
      inputs = (IMAGES, used.outputs)
    keras.utils.set_random_seed(0)
    objectives = [o.SoftTargets(3.0), o.Hint(["relu0", "relu1"], ["relu0", "relu1"], connector="conv1x1")]
    distiller = compiled(used, _cnn("student", 4), objectives, compile_options={"run_eagerly": True})
    batches = data.batches(inputs, LABELS, 16, scale_pixels=True, shuffle_seed=1, **options).repeat(3)
    histories[source] = [
      distiller.train_on_batch(*batch, return_dict=True, reset_metrics=True)["loss"] for batch in batches
    ]
  assert len(histories["online"]) == 12
  np.testing.assert_allclose(histories["float32"], histories["online"], rtol=1e-6)
  np.testing.assert_allclose(histories["float16"], histories["online"], rtol=1e-3)


def test_trains_on_replicas_with_several_steps_at_a_time_as_on_one(teacher, tmp_path, two_replicas):
  cached = cache(teacher, _in_order(), tmp_path / "c", layers=["relu1"])
  weights = []
  for strategy, steps in ((tf.distribute.get_strategy(), 1), (two_replicas, 3)):
    keras.utils.set_random_seed(0)
    with strategy.scope():
      options = {"compile_options": {"steps_per_execution": steps, "run_eagerly": steps == 1}}
      objectives = [o.SoftTargets(2.0), o.Hint("relu1", "relu1", connector="conv1x1")]
      distiller = compiled(cached, _cnn("student", 4), objectives, **options)
    distiller.fit(
      data.batches((IMAGES, cached.outputs), LABELS, 10, scale_pixels=True, shuffle_seed=4), epochs=2, verbose=0
    )
    weights.append(distiller.get_weights())
  for one, two in zip(*weights, strict=True):
    np.testing.assert_allclose(two, one, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("with_labels", [True, False])
def test_any_data_set_can_be_joined(teacher, tmp_path, with_labels):
  dataset = tf.data.Dataset.from_tensor_slices((IMAGES / np.float32(255), LABELS))
  dataset = dataset if with_labels else dataset.map(lambda x, y: x)
  cached = cache(teacher, dataset.batch(16), tmp_path / "c")
  joined = cached.zip(dataset.batch(7)).unbatch().shuffle(50, seed=0).batch(25)
  for element in joined:
    assert len(element) == (2 if with_labels else 1)
    images, outputs = element[0]
    np.testing.assert_allclose(outputs, teacher(images), rtol=1e-4, atol=1e-5)
  longer = dataset.concatenate(dataset.take(1)).batch(17)
  with pytest.raises(tf.errors.InvalidArgumentError, match="50 examples, and the data set has more"):
    list(cached.zip(longer))


def test_nested_inputs_and_functions_can_be_teachers(tmp_path):
  dataset = tf.data.Dataset.from_tensor_slices({"a": np.arange(6.0), "b": np.ones(6)}).batch(4)
  cached = cache(lambda x: tf.stack([x["a"], x["b"]], axis=1), dataset, tmp_path / "c")
  np.testing.assert_array_equal(cached.outputs, np.stack([np.arange(6), np.ones(6)], axis=1))


X = np.random.default_rng(1).random((50, 6), np.float32)
Y = np.arange(50) % 3


class TestSeveralOutputs:
  """The outputs of a teacher of several heads, and the features that its function returns."""

  @staticmethod
  def _of(kind, features):
    def teacher(x):
      parts = x @ np.eye(3, 2, dtype=np.float32), tf.stack([x, -x], axis=1)
      outputs = {"z": parts[0], "a": parts[1]} if kind == "dict" else kind(parts)
      return ModelOutputs(outputs, {"double": 2 * x, "unused": x}) if features else outputs

    return teacher

  @pytest.mark.parametrize("kind", ["dict", list, tuple])
  @pytest.mark.parametrize("features", [False, True], ids=["outputs", "features"])
  def test_are_stored_and_joined_by_batches_and_zip(self, kind, features, tmp_path):
    x = np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32)
    in_order = data.batches(x, None, 4)
    options = {"layers": ["double"]} if features else {}
    cached = cache(self._of(kind, features), in_order, tmp_path / "c", **options)
    shuffled = data.batches((x, cached.outputs), None, 4, shuffle_seed=1)
    for dataset in (shuffled, cached.zip(in_order)):
      for ((inputs, stored),) in dataset:
        names = ["double"] if features else []
        outputs, found = Precomputed()((inputs, stored), names)
        expected = self._of(kind, False)(inputs.numpy())
        by_key = dict(enumerate(expected)) if kind != "dict" else expected
        assert set(dict(enumerate(outputs)) if kind != "dict" else outputs) == set(by_key)
        for key, value in by_key.items():
          np.testing.assert_allclose(outputs[key], value, rtol=1e-6)
        if features:
          np.testing.assert_allclose(found["double"], 2 * inputs, rtol=1e-6)
    again = cache(self._of(kind, features), in_order, tmp_path / "c", **options)
    assert len(again) == 10

  def test_of_another_structure_or_value_are_refused(self, tmp_path):
    x = np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32)
    in_order = data.batches(x, None, 4)
    cache(self._of("dict", False), in_order, tmp_path / "c")
    with pytest.raises(ValueError, match="outputs of another structure, now outputs:0, outputs:1"):
      cache(self._of(list, False), in_order, tmp_path / "c")
    with pytest.raises(ValueError, match="outputs of the first batch differ"):
      cache(lambda x: {**self._of("dict", False)(x), "a": tf.stack([x, x], axis=1)}, in_order, tmp_path / "c")

  def test_missing_features_are_refused_with_those_there_are(self, tmp_path):
    in_order = data.batches(np.ones((4, 3), np.float32), None, 4)
    with pytest.raises(ValueError, match="gives no feature other, .* it gives double, unused"):
      cache(self._of("dict", True), in_order, tmp_path / "c", layers=["other"])
    batch = (np.ones((4, 3)), (np.ones((4, 2)), {"double": np.ones((4, 3))}))
    with pytest.raises(ValueError, match="no teacher features of other; it has double: "):
      Precomputed()(batch, ["other"])

  def test_a_step_with_stored_heads_equals_the_step_online(self, tmp_path):
    x = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)

    def heads(name):
      inputs = keras.Input((3,))
      initializer = keras.initializers.GlorotUniform(seed=len(name))
      outputs = {
        key: layers.Dense(n, kernel_initializer=initializer, name=key)(inputs) for key, n in (("a", 2), ("b", 3))
      }
      return keras.Model(inputs, outputs, name=name)

    members = [heads("first"), heads("another")]
    teacher = Ensemble(members, [3, 1])
    cached = cache(teacher, data.batches(x, None, 5), tmp_path / "c")
    students = [heads("student"), heads("student")]
    for student, with_teacher in zip(students, (teacher, cached), strict=True):
      terms = [o.SoftTargets(2.0, output="a"), o.SoftTargets(2.0, output="b", name="other")]
      distiller = tfkd.Distiller(with_teacher, student, terms, hard_loss_weight=0)
      distiller.compile("sgd")
      inputs = (x, cached.outputs) if with_teacher is cached else x
      distiller.fit(data.batches(inputs, None, 4), epochs=2, verbose=0)
    for one, other in zip(*(student.get_weights() for student in students), strict=True):
      np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def _linear(x):
  return x[:, :3] * 2.0


def _dataset(*arrays):
  return tf.data.Dataset.from_tensor_slices(arrays)


@pytest.fixture(scope="module")
def of_vectors(tmp_path_factory):
  return cache(_linear, _dataset(X, Y).batch(16), tmp_path_factory.mktemp("vectors") / "c")


def _swapped(array, a, b):
  array = array.copy()
  array[[a, b]] = array[[b, a]]
  return array


class TestOtherInputs:
  """Outputs are never joined to inputs that they were not computed from."""

  def _wrong(self, cached, dataset):
    with pytest.raises(tf.errors.InvalidArgumentError) as raised:
      list(cached.zip(dataset))
    return raised.value.message

  @pytest.mark.parametrize(
    "inputs, first", [(X[::-1].copy(), 0), (_swapped(X, 20, 49), 20), (X + np.float32(1e-6) * (X > 0.9), None),
                      (np.random.default_rng(2).random((50, 6), np.float32), 0)],
    ids=["reversed", "two swapped", "values changed", "others"],
  )  # fmt: skip
  def test_of_another_order_or_data_set_are_found_at_the_first_example(self, of_vectors, inputs, first):
    first = int(np.flatnonzero((inputs != X).any(axis=1))[0]) if first is None else first
    for batch_size in (1, 16, 50):
      words = f"example {first} of the data set differs from the one whose outputs are in {of_vectors.path}"
      assert words in self._wrong(of_vectors, _dataset(inputs, Y).batch(batch_size))
    with pytest.raises(
      (ValueError, tf.errors.InvalidArgumentError), match=rf"do not belong together.* {first}\b|\[{first}\]"
    ):
      list(data.batches((inputs, of_vectors.outputs), Y, 16))
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError), match="do not belong together"):
      list(data.batches((inputs, of_vectors.outputs), Y, 50, shuffle_seed=3))

  def test_shuffled_before_they_are_joined_are_found(self, of_vectors):
    shuffled = _dataset(X, Y).shuffle(50, seed=0)
    assert "in the same order" in self._wrong(of_vectors, shuffled.batch(16))
    assert "repeat it after `zip`" in self._wrong(of_vectors, _dataset(X, Y).batch(16).repeat(2))
    assert len(list(of_vectors.zip(_dataset(X, Y).batch(7)).unbatch().shuffle(50).repeat(2).batch(10))) == 10

  def test_that_change_in_each_iteration_are_not_cached(self, tmp_path):
    shuffled = _dataset(X, Y).shuffle(50, seed=0)
    noise = tf.data.Dataset.random(rerandomize_each_iteration=True)
    augmented = tf.data.Dataset.zip(_dataset(X, Y), noise).map(
      lambda xy, seed: (xy[0] + tf.cast(seed, tf.float32), xy[1])
    )
    for dataset in (shuffled, augmented, _dataset(X).map(lambda x: x).shuffle(50)):
      with pytest.raises(ValueError, match=r"other examples when it is iterated again.* before it is shuffled"):
        cache(_linear, dataset.batch(16), tmp_path / "c")
    with pytest.raises(ValueError, match="other examples when it is iterated again"):
      cache(_linear, data.batches(X, Y, 16, shuffle_seed=0), tmp_path / "c")
    once = iter([X])
    with pytest.raises(ValueError, match="other examples when it is iterated again"):
      spec = tf.TensorSpec([None, 6], tf.float32)
      cache(_linear, tf.data.Dataset.from_generator(lambda: once, output_signature=spec), tmp_path / "c")
    assert not os.listdir(tmp_path)
    fixed = _dataset(X, Y).shuffle(50, seed=0, reshuffle_each_iteration=False).batch(16)
    for (inputs, outputs), _ in cache(_linear, fixed, tmp_path / "c").zip(fixed):
      np.testing.assert_allclose(outputs, _linear(inputs))

  def test_of_another_type_or_shape_are_refused_before_the_first_batch(self, of_vectors):
    with pytest.raises(ValueError, match=r"other inputs \(float32 \[6\] there, uint8 \[6\] now\): scale and convert"):
      of_vectors.zip(_dataset(X.astype(np.uint8), Y).batch(16))
    with pytest.raises(ValueError, match=r"float32 \[6\] there, float32 \[3, 2\] now"):
      of_vectors.zip(_dataset(X.reshape(50, 3, 2)).batch(16))
    with pytest.raises(ValueError, match=r"float32 \[6\] there, int64 \[\], float32 \[6\] now"):
      of_vectors.zip(_dataset({"x": X, "n": Y}, Y).map(lambda x, y: (x, y)).batch(16))
    with pytest.raises(ValueError, match="expected a tf.data.Dataset of batches; got a ndarray"):
      of_vectors.zip(X)
    with pytest.raises(ValueError, match="batches of dense tensors; the data set has RaggedTensorSpec"):
      cache(_linear, tf.data.Dataset.from_tensors(tf.ragged.constant([[1.0], [1.0, 2.0]])), "unused")

  def test_labels_and_weights_are_passed_on_and_nested_inputs_compared(self, of_vectors, tmp_path):
    weights = np.linspace(0, 1, 50)
    ((inputs, outputs), y, w), *_ = of_vectors.zip(_dataset(X, Y, weights).batch(20))
    np.testing.assert_array_equal(y, Y[:20])
    np.testing.assert_array_equal(w, weights[:20])
    np.testing.assert_allclose(outputs, _linear(inputs))
    for alone in (_dataset(X), _dataset(X).map(lambda x: x)):  # (inputs,), and inputs.
      for (pair,) in of_vectors.zip(alone.batch(20)):
        np.testing.assert_allclose(pair[1], _linear(pair[0]))
    text = np.array([f"number {i}" for i in range(50)], object)
    nested = {"x": X, "text": text}
    cached = cache(lambda batch: _linear(batch["x"]), _dataset(nested, Y).batch(16), tmp_path / "n")
    assert len(list(cached.zip(_dataset(nested, Y).batch(7)))) == 8
    for part, array in (("x", _swapped(X, 3, 4)), ("text", _swapped(text, 3, 4))):
      assert "example 3 of" in self._wrong(cached, _dataset({**nested, part: array}, Y).batch(7))
    (batch, *_) = data.batches((nested, cached.outputs), Y, 16, shuffle_seed=0)
    np.testing.assert_allclose(batch[0][1], _linear(batch[0][0]["x"]))
    with pytest.raises(ValueError, match="do not belong together.*First wrong example: 3"):
      data.batches(({**nested, "text": _swapped(text, 3, 4)}, cached.outputs), Y, 16)

  def test_a_student_learns_from_inputs_alone(self, of_vectors):
    student = keras.Sequential([keras.Input([6]), layers.Dense(3)])
    distiller = compiled(of_vectors, student, [o.SoftTargets(2.0)], hard_loss_weight=0.0)
    distiller.fit(of_vectors.zip(_dataset(X).batch(10)), epochs=2, verbose=0)
    distiller.fit(data.batches((X, of_vectors.outputs), None, 10, shuffle_seed=0), verbose=0)

  def test_scaled_or_augmented_otherwise_are_found(self, teacher, tmp_path):
    cached = cache(teacher, _in_order(), tmp_path / "c", layers=["relu0"])
    with pytest.raises(ValueError, match="do not belong together.*First wrong example: 0"):
      data.batches((IMAGES, cached.outputs), LABELS, 16)
    with pytest.raises(ValueError, match="do not belong together.*First wrong example: 0"):
      _joined(cached, transforms=[data.Normalize(Preprocessing(mean=0.5, std=0.5))])
    with pytest.raises(ValueError, match="do not belong together.*First wrong example: 0"):
      _joined(cached, outputs=cached.outputs[1]["relu0"], images=_swapped(IMAGES, 0, 1))
    views = cache(teacher, _in_order(transforms=[data.Augment(padded_crop, 2)]), tmp_path / "v")
    assert len(list(_joined(views, transforms=[data.Augment(padded_crop, 2)]))) == 4
    with pytest.raises(ValueError, match="do not belong together.*First wrong example: 0"):
      _joined(
        views,
        transforms=[data.Augment(lambda x, draw: padded_crop(x, draw, flip=False), 2)],
        outputs=views.outputs[:100],
      )

  def test_a_part_of_the_outputs_is_compared_with_its_own_inputs(self, of_vectors):
    order = np.random.default_rng(0).permutation(50)
    parts = (slice(10, 40), order, list(order[:20]), Y == 1)
    for rows in parts:
      part = of_vectors.outputs[rows]
      assert len(list(data.batches((X[rows], part), Y[rows], 10, shuffle_seed=1))) == -(-len(part) // 10)
      with pytest.raises(ValueError, match="do not belong together"):
        data.batches((X[: len(part)][::-1].copy(), part), Y[: len(part)], 10)
    joined = [
      lambda a: np.concatenate([a[:5], a[9:]]),
      lambda a: np.take(a, order, axis=0),
      lambda a: np.array_split(a, 3)[1],
      lambda a: np.repeat(a, 2, axis=0),
    ]
    for change in joined:
      x, part = change(X), change(of_vectors.outputs)
      assert len(list(data.batches((x, part), None, 10))) == -(-len(part) // 10)
      with pytest.raises(ValueError, match="do not belong together"):
        data.batches((x[::-1].copy(), part), None, 10)
    for other in (np.take(of_vectors.outputs, [1, 2]), np.concatenate([of_vectors.outputs] * 2, axis=1)):
      assert getattr(other, "fingerprints", None) is None
    assert type(of_vectors.outputs.mean()) is np.float32 and of_vectors.outputs[3].shape == (3,)
    assert of_vectors.outputs[:, 1][:5].fingerprints.shape == (5,) and type(of_vectors.outputs * 2) is np.ndarray


def _joined(cached, outputs=None, images=IMAGES, **options):
  outputs = cached.outputs if outputs is None else outputs
  return data.batches((images, outputs), LABELS, 16, scale_pixels=True, shuffle_seed=2, **options)


def test_layers_may_have_any_name(tmp_path):
  inputs = keras.Input([6])
  hidden = layers.Dense(4, name="outputs")(inputs)
  hidden = layers.Dense(5, name="fingerprints")(layers.Dense(4, name="a/b")(layers.Dense(4, name="a--b")(hidden)))
  teacher = keras.Model(inputs, layers.Dense(3)(hidden))
  names = ["outputs", "fingerprints", "a/b", "a--b"]
  cached = cache(teacher, _dataset(X).batch(16), tmp_path / "c", layers=names)
  logits, features = Frozen(teacher)(X, names)
  np.testing.assert_allclose(cached.outputs[0], logits, rtol=1e-4, atol=1e-6)
  for name in names:
    np.testing.assert_allclose(cached.outputs[1][name], features[name], rtol=1e-4, atol=1e-6)


class TestAnEarlierCache:
  """An existing cache at the path."""

  @pytest.fixture
  def path(self, teacher, tmp_path):
    cache(teacher, _in_order(), tmp_path / "c")
    return tmp_path / "c"

  def test_is_used_in_batches_of_any_size(self, teacher, path):
    calls = []

    class Counted(Frozen):
      def __call__(self, inputs):
        calls.append(1)
        return super().__call__(inputs)

    written = os.stat(path / "outputs.bin").st_mtime_ns
    assert len(cache(Counted(teacher), _in_order(7), path)) == 50
    assert os.stat(path / "outputs.bin").st_mtime_ns == written and len(calls) == 1  # One trace: the first batch.

  def test_of_other_weights_is_refused(self, teacher, path):
    teacher.layers[-1].bias.assign_add([1e-3, 0, 0, 0])
    with pytest.raises(
      ValueError, match=r"another teacher or data \(weights differ\): use another path, or remove the cache"
    ):
      cache(teacher, _in_order(), path)

  def test_of_another_preprocessing_is_refused(self, teacher, path):
    with pytest.raises(ValueError, match=r"preprocessing: \[None\] there, .*size=16.* now"):
      cache(Frozen(teacher, HALVES._replace(size=16)), _in_order(), path)

  def test_of_a_function_with_other_outputs_is_refused(self, teacher, path, tmp_path):
    cache(lambda x: teacher(x), _in_order(), tmp_path / "f")
    assert len(cache(lambda x: teacher(x), _in_order(), tmp_path / "f")) == 50
    with pytest.raises(ValueError, match="outputs of the first batch differ"):
      cache(lambda x: teacher(1 - x), _in_order(), tmp_path / "f")

  def test_of_an_ensemble_knows_each_member(self, tmp_path):
    members = [_cnn("a"), _cnn("b")]
    cache(Ensemble(members), _in_order(), tmp_path / "e")
    with pytest.raises(ValueError, match=r"ensemble: .*0.5, 0.5.* there, .*0.50\d+, 0.49"):
      cache(Ensemble(members, weights=[1.01, 0.99]), _in_order(), tmp_path / "e")
    members[1].layers[-1].bias.assign_add([1e-3, 0, 0, 0])
    with pytest.raises(ValueError, match="weights differ"):
      cache(Ensemble(members), _in_order(), tmp_path / "e")

  @pytest.mark.parametrize("change", ["one pixel of the last", "order", "fewer", "more"])
  def test_of_other_data_is_refused(self, teacher, path, change):
    images, labels = IMAGES.copy(), LABELS
    if change == "one pixel of the last":
      images[49, 15, 15, 2] ^= 1
    elif change == "order":
      images[[40, 41]] = images[[41, 40]]
    else:
      images = images[:49] if change == "fewer" else np.concatenate([images, images[:1]])
      labels = np.zeros(len(images))
    first = {"one pixel of the last": 49, "order": 40, "fewer": 49, "more": 50}[change]
    with pytest.raises(ValueError, match=rf"\(data differ\): the first different example is {first}; use another path"):
      cache(teacher, data.batches(images, labels, 16, scale_pixels=True), path)

  def test_of_other_layers_or_type_is_refused(self, teacher, path):
    with pytest.raises(ValueError, match=r"layers: \[\] there, \['relu0'\] now"):
      cache(teacher, _in_order(), path, layers=["relu0"])
    with pytest.raises(ValueError, match="dtype: float32 there, float16 now"):
      cache(teacher, _in_order(), path, dtype="float16")

  def test_that_is_damaged_is_refused(self, teacher, path):
    for name in ("outputs.bin", "fingerprints.bin"):
      whole = (path / name).read_bytes()
      content = bytearray(whole)
      content[17] ^= 1
      (path / name).write_bytes(content)
      cached = CachedTeacher(path)
      words = rf"{name} has changed since it was written .*examples 0 to 49 differs.*: remove .* and write it again"
      with pytest.raises(ValueError, match=words):
        cached.verify()
      with pytest.raises(ValueError, match=words):
        data.batches((IMAGES, cached.outputs), LABELS, 10, scale_pixels=True)
      (path / name).write_bytes(whole)
    with open(path / "outputs.bin", "r+b") as file:
      file.truncate(790)
    with pytest.raises(ValueError, match=r"outputs.bin has 790 bytes instead of 800: remove .* and write it again"):
      CachedTeacher(path)
    (path / "manifest.json").write_text("{")
    with pytest.raises(ValueError, match=r"manifest.json is damaged"):
      CachedTeacher(path)
    (path / "manifest.json").write_text(to_checked_json({"format": 99}))
    with pytest.raises(ValueError, match="has format 99, and this version reads 4: remove it and write it again"):
      CachedTeacher(path)
    with pytest.raises(FileNotFoundError, match="is no cache of teacher outputs"):
      CachedTeacher(path.parent)

  def test_is_verified_block_by_block_when_it_is_used(self, teacher, tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "_BLOCK_BYTES", 16 * 20)  # 20 examples of four logits.
    path = tmp_path / "blocks"
    expected = np.array(cache(teacher, _in_order(7), path).outputs)
    content = bytearray((path / "outputs.bin").read_bytes())
    content[16 * 45 + 3] ^= 1  # In the last of three blocks.
    (path / "outputs.bin").write_bytes(content)
    cached = CachedTeacher(path)
    outputs = cached.outputs
    np.testing.assert_array_equal(outputs[:40], expected[:40])
    np.testing.assert_array_equal(outputs[[3, 39, -15]], expected[[3, 39, 35]])
    np.testing.assert_array_equal(outputs[7], expected[7])
    words = "outputs.bin has changed since it was written .*examples 40 to 49"
    for use in (
      lambda a: a[40], lambda a: a[-1], lambda a: a[30:], lambda a: a[::-1], lambda a: a[[0, 44]], lambda a: a[...],
      lambda a: a[np.ones(50, bool)], lambda a: a[:, 2], np.copy, np.sum, lambda a: a * 2, lambda a: a.max(), list,
      lambda a: np.take(a, [1], axis=0), lambda a: np.concatenate([a, a]), lambda a: cached.verify(),
    ):  # fmt: skip
      with pytest.raises(ValueError, match=words):
        use(outputs)
    # The first batches are right; the last is found by the pipeline.
    seen = 0
    with pytest.raises(tf.errors.InvalidArgumentError, match="has changed since it was written"):
      for _ in data.batches((IMAGES, outputs), LABELS, 10, scale_pixels=True):
        seen += 1
    assert seen <= 4
    monkeypatch.setattr(zlib, "crc32", lambda *args: pytest.fail("a verified block is read once"))
    np.testing.assert_array_equal(outputs[:40], expected[:40])

  def test_of_the_earlier_format_is_read(self, teacher, path):
    expected = np.array(CachedTeacher(path).outputs)
    manifest = from_checked_json((path / "manifest.json").read_text())
    sums = {name: zlib.crc32((path / f"{name}.bin").read_bytes()) for name in ("outputs", "fingerprints")}
    (path / "manifest.json").write_text(to_checked_json({**manifest, "format": 3, "crc32": sums}))
    found = cache(teacher, _in_order(), path)
    np.testing.assert_array_equal(found.outputs[3:9], expected[3:9])
    found.verify()

  def test_that_lacks_a_layer_names_it(self, path):
    with pytest.raises(ValueError, match=r"has no features of relu1; it has none: write another"):
      tfkd.Distiller(CachedTeacher(path), _cnn("student"), [o.Hint("relu1", "relu1")])


class TestInterrupted:
  """A partial cache."""

  def _interrupt(self, monkeypatch, teacher, dataset, path, after):
    """Fails at the teacher's call number `after`; every batch is recorded at once."""
    monkeypatch.setattr(writing, "_RECORD_SECONDS", -1.0)
    calls = []

    def failing(x):
      def check():
        calls.append(1)
        if len(calls) == after:
          raise KeyboardInterrupt("power cut")
        return np.int32(0)

      with tf.control_dependencies([tf.numpy_function(check, [], tf.int32)]):
        return tf.identity(teacher(x))

    with pytest.raises(Exception, match="power cut"):
      cache(_same_identity(failing, teacher), dataset, path)
    assert not path.exists()
    (path.parent / f"{path.name}.partial" / ".progress.json.x").mkdir()  # As a kill while it is written may leave it.

  def test_resumes_at_the_recorded_batch(self, teacher, tmp_path, monkeypatch):
    path = tmp_path / "c"
    self._interrupt(monkeypatch, teacher, _in_order(10), path, after=4)
    asked = []

    def counting(x):
      with tf.control_dependencies([tf.numpy_function(lambda n: asked.append(n) or n, [tf.shape(x)[0]], tf.int32)]):
        return tf.identity(teacher(x))

    cached = cache(_same_identity(counting, teacher), _in_order(16), path)  # Other batches: 30 are done, 2 of 16 here.
    assert [int(n) for n in asked] == [2, 16, 2]
    np.testing.assert_allclose(
      cached.outputs, teacher.predict(IMAGES / np.float32(255), verbose=0), rtol=1e-4, atol=1e-6
    )
    assert sorted(os.listdir(path)) == ["fingerprints.bin", "manifest.json", "outputs.bin"]
    assert len(cache(teacher, _in_order(), path)) == 50  # The fingerprints equal those of an uninterrupted run.

  @pytest.mark.parametrize("change", ["teacher", "data", "truncated", "damaged"])
  def test_starts_over_if_the_partial_cache_is_unusable(self, teacher, tmp_path, monkeypatch, change):
    path = tmp_path / "c"
    self._interrupt(monkeypatch, teacher, _in_order(10), path, after=4)
    partial = tmp_path / "c.partial"
    images = IMAGES.copy()
    if change == "teacher":
      teacher.layers[-1].bias.assign_add([1, 0, 0, 0])
    elif change == "data":
      images[3] = 0
    elif change == "truncated":
      os.truncate(partial / "outputs.bin", 100)
    else:
      (partial / "progress.json").write_text('{"identity": ')
    cached = cache(teacher, data.batches(images, LABELS, 10, scale_pixels=True), path)
    np.testing.assert_allclose(
      cached.outputs, teacher.predict(images / np.float32(255), verbose=0), rtol=1e-4, atol=1e-6
    )

  def test_a_kill_loses_only_unrecorded_batches(self, tmp_path):
    script = textwrap.dedent("""
      import sys, time, numpy as np, tensorflow as tf
      from tfkd.teachers import cache
      from tfkd.teachers import cache_writer as writing
      writing._RECORD_SECONDS = 0.0
      def teacher(x):
        def wait(x):
          time.sleep(0.05); print(int(x[0]), flush=True); return x
        return tf.ensure_shape(tf.numpy_function(wait, [x], tf.float32), [None])[:, None]
      cache(teacher, tf.data.Dataset.range(4000).map(lambda i: tf.cast(i, tf.float32)).batch(20), sys.argv[1])
    """)
    command = [sys.executable, "-c", script, str(tmp_path / "c")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
      if int(line) >= 300:
        break
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "c").exists()
    recorded = json.loads((tmp_path / "c.partial" / "progress.json").read_text())["examples"]
    asked = []

    def teacher(x):
      return tf.ensure_shape(tf.numpy_function(lambda x: asked.append(int(x[0])) or x, [x], tf.float32), [None])[
        :, None
      ]

    cache(teacher, tf.data.Dataset.range(4000).map(lambda i: tf.cast(i, tf.float32)).batch(20), tmp_path / "c")
    assert recorded >= 180 and asked[0] == recorded
    np.testing.assert_array_equal(CachedTeacher(tmp_path / "c").outputs[:, 0], np.arange(4000))


def _same_identity(function, model):
  """Returns the function with the weights of a model, so that a cache describes both alike."""
  function.weights = model.weights
  return function


def test_concurrent_calls_with_one_path_run_the_teacher_once(teacher, tmp_path):
  asked = []

  def counting(x):
    def count(n):
      asked.append(n)
      time.sleep(0.05)
      return n

    with tf.control_dependencies([tf.numpy_function(count, [tf.shape(x)[0]], tf.int32)]):
      return tf.identity(teacher(x))

  threads = [threading.Thread(target=cache, args=(counting, _in_order(), tmp_path / "c")) for _ in range(2)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert sum(asked) == 50 + 16  # The second call runs one batch to check that the teacher is the same.


def test_outputs_that_do_not_fit_the_dtype_raise(tmp_path):
  dataset = tf.data.Dataset.range(40).map(lambda i: tf.cast(i, tf.float32)).batch(10)
  with pytest.raises(ValueError, match=r"outputs is too large for float16 in example 33, at \[0\]"):
    cache(lambda x: 2e3 * x[:, None], dataset, tmp_path / "c", dtype="float16")
  with pytest.raises(ValueError, match=r"outputs is not finite in example 0, at \[0\]"):
    cache(lambda x: tf.math.log(x)[:, None], dataset, tmp_path / "c")
  with pytest.raises(ValueError, match="dtype must be one of float16, float32; got 'int8'"):
    cache(lambda x: x[:, None], dataset, tmp_path / "c", dtype="int8")
  with pytest.raises(ValueError, match=r"strings as keys; the teacher returns \{'a': \['tensor'\]\}"):
    cache(lambda x: {"a": [x]}, dataset, tmp_path / "c")
  with pytest.raises(ValueError, match=r"teacher's outputs/b has shape \(3,\) for 10 examples: return one entry per"):
    cache(lambda x: {"a": x, "b": x[:3]}, dataset, tmp_path / "c")
  with pytest.raises(ValueError, match="no examples"):
    cache(lambda x: x[:, None], dataset.take(0), tmp_path / "c")
  assert not (tmp_path / "c").exists()


def test_a_full_disk_raises_before_the_teacher_runs(teacher, tmp_path, monkeypatch):
  monkeypatch.setattr(writing.shutil, "disk_usage", lambda path: SimpleNamespace(free=20_000))
  with pytest.raises(OSError, match=r"outputs take 0.10 MB, and .* has 0.02 MB of space: use fewer layers or"):
    cache(teacher, _in_order(), tmp_path / "c", layers=["relu0"])
  assert os.path.getsize(tmp_path / "c.partial" / "layers%2Frelu0.bin") == 0
  assert len(cache(teacher, _in_order(), tmp_path / "c")) == 50
