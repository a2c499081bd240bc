"""Caches of the largest logits."""

import json

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import tfkd
from tfkd import losses
from tfkd.objectives import Decoupled, Dist, Hint, Normalized, SoftTargets
from tfkd.teachers import CachedTeacher, cache

pytestmark = pytest.mark.usefixtures("run_eagerly")
layers = keras.layers
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(30, 6)).astype(np.float32), RNG.integers(0, 12, 30)
IN_ORDER = tf.data.Dataset.from_tensor_slices(X).batch(8)
SPARSE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def _model(classes=12, name=None):
  model = keras.Sequential([keras.Input((6,)), layers.Dense(8, name="hidden"), layers.Dense(classes)], name=name)
  model.set_weights([2 * w for w in model.get_weights()])
  return model


def _losses(teacher, student, objectives, data):
  distiller = tfkd.Distiller(teacher, student, objectives)
  distiller.compile("sgd", SPARSE)
  return distiller.evaluate(data, verbose=0, return_dict=True)


@pytest.mark.parametrize("form", ["kl", "cross_entropy", "reverse_kl", "jsd"])
def test_all_classes_give_the_values_of_a_dense_cache(tmp_path, form):
  teacher, student, found = _model(), _model(), {}
  objectives = [SoftTargets(3.0, form=form), Decoupled(3.0)]
  for k in (None, 12, 5):
    cached = cache(teacher, IN_ORDER, tmp_path / f"{k}", top_k=k)
    assert cached.top_k == k
    data = tfkd.data.batches((X, cached.outputs), Y, 10)
    found[k] = _losses(cached, student, objectives, data)
  assert found[None].keys() == found[12].keys() == found[5].keys() and "agreement" in found[5]
  for name, value in found[None].items():
    assert found[12][name] == pytest.approx(value, rel=1e-5), name
  assert found[5]["agreement"] == found[None]["agreement"]
  assert found[5]["soft_targets"] != pytest.approx(found[None]["soft_targets"], rel=1e-3)


def test_the_arrays_are_the_largest_logits(tmp_path):
  teacher = _model()
  cached = cache(teacher, IN_ORDER, tmp_path / "c", top_k=3)
  logits = teacher.predict(X, verbose=0)
  order = np.argsort(-logits, axis=1)[:, :3]
  np.testing.assert_array_equal(cached.outputs["classes"], order)
  assert cached.outputs["classes"].dtype == np.uint8
  np.testing.assert_allclose(cached.outputs["values"], np.take_along_axis(logits, order, 1), rtol=1e-5)
  rest = np.log(np.exp(logits).sum(1) - np.exp(np.take_along_axis(logits, order, 1)).sum(1))
  np.testing.assert_allclose(cached.outputs["log_rest"], rest, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_student_trains_on_them(tmp_path, zipped):
  cached = cache(_model(), IN_ORDER, tmp_path / "c", layers=["hidden"], dtype="float16", top_k=3)
  student = _model()
  distiller = tfkd.Distiller(cached, student, [SoftTargets(2.0), Decoupled(2.0), Hint("hidden", "hidden")])
  distiller.compile(keras.optimizers.Adam(0.05), SPARSE)
  labelled = tf.data.Dataset.from_tensor_slices((X, Y)).batch(8)
  data = cached.zip(labelled) if zipped else tfkd.data.batches((X, cached.outputs), Y, 8, shuffle_seed=0)
  weighted = data.map(lambda x, y: (x, y, tf.ones(tf.shape(y)) * tf.cast(y != 3, tf.float32)))
  history = distiller.fit(weighted, epochs=8, verbose=0).history
  for name in ("soft_targets", "decoupled", "hint"):
    assert history[name][-1] < 0.7 * history[name][0]


def test_several_outputs_and_positions(tmp_path):
  inputs = keras.Input((6,))
  grid = layers.Reshape((4, 5))(layers.Dense(20)(inputs))
  teacher = keras.Model(inputs, {"a": layers.Dense(7, name="a")(inputs), "b": grid})
  student = keras.models.clone_model(teacher)
  terms = [SoftTargets(2.0, output="a", name="of_a"), SoftTargets(2.0, output="b", name="of_b")]
  values = {}
  for k in (None, 5):
    cached = cache(teacher, IN_ORDER, tmp_path / f"{k}", top_k=k)
    data = tf.data.Dataset.zip((tf.data.Dataset.from_tensor_slices((X, dict(cached.outputs))).batch(10),)).map(
      lambda pair: (pair,)
    )
    distiller = tfkd.Distiller(cached, student, terms, hard_loss_weight=0)
    distiller.compile("sgd")
    values[k] = distiller.evaluate(data, verbose=0, return_dict=True)
  assert values[5]["of_b"] == pytest.approx(values[None]["of_b"], rel=1e-5)  # Five classes.
  assert values[5]["of_a"] < values[None]["of_a"]


def test_bytes(tmp_path):
  teacher = keras.Sequential([keras.Input((6,)), layers.Dense(1000)])
  sizes = {}
  for k in (None, 32):
    cache(teacher, IN_ORDER, tmp_path / f"{k}", top_k=k)
    sizes[k] = sum(path.stat().st_size for path in (tmp_path / f"{k}").glob("*.bin"))
  assert sizes[32] == 30 * (32 * 4 + 32 * 2 + 4 + 8)
  assert sizes[None] / sizes[32] > 15


@pytest.mark.parametrize(
  "objective, words",
  [
    (Dist(), "objective 'dist' reads all logits of the teacher, and 3 of each example are stored"),
    (Normalized(), "objective 'normalized' reads all logits"),
    (SoftTargets(standardize=True), "objective 'soft_targets' reads all logits"),
    (Decoupled(standardize=True), "objective 'decoupled' reads all logits"),
  ],
)
def test_objectives_that_read_all_logits_refuse_when_the_distiller_is_made(tmp_path, objective, words):
  cached = cache(_model(), IN_ORDER, tmp_path / "c", top_k=3)
  with pytest.raises(ValueError, match=words):
    tfkd.Distiller(cached, _model(), [objective])


def test_own_arrays_are_refused_too(tmp_path):
  kept = losses.top_k(tf.constant(RNG.normal(size=(30, 12))), 3)
  outputs = {"values": kept.values, "classes": kept.classes, "log_rest": kept.log_rest}
  data = tf.data.Dataset.from_tensor_slices(((X, outputs), Y)).batch(10)
  values = _losses(tfkd.teachers.Precomputed(), _model(), [SoftTargets(2.0)], data)
  assert np.isfinite(values["soft_targets"])
  with pytest.raises(ValueError, match="objective 'dist' reads all logits"):
    _losses(tfkd.teachers.Precomputed(), _model(), [Dist()], data)
  with pytest.raises(ValueError, match="outputs have 3 classes each, and the student has 2"):
    distiller = tfkd.Distiller(tfkd.teachers.Precomputed(), _model(2), [SoftTargets(2.0)], hard_loss_weight=0)
    distiller.compile("sgd")
    distiller.evaluate(data, verbose=0)


def test_wrong_numbers_are_named(tmp_path):
  teacher = _model()
  for wrong in (0, -1, 2.5, True, "3"):
    with pytest.raises(ValueError, match="top_k must be a whole number >= 1"):
      cache(teacher, IN_ORDER, tmp_path / "c", top_k=wrong)
  with pytest.raises(ValueError, match=r"top_k is 13, and the teacher's outputs have shape .*12.*: expected"):
    cache(teacher, IN_ORDER, tmp_path / "c", top_k=13)
  cache(teacher, IN_ORDER, tmp_path / "c", top_k=3)
  with pytest.raises(ValueError, match="top_k: 3 there, 4 now"):
    cache(teacher, IN_ORDER, tmp_path / "c", top_k=4)
  with pytest.raises(ValueError, match="top_k: 3 there, None now"):
    cache(teacher, IN_ORDER, tmp_path / "c")
  assert cache(teacher, IN_ORDER, tmp_path / "c", top_k=3).top_k == 3


def test_caches_of_all_logits_that_were_written_before_are_read(tmp_path):
  teacher = _model()
  cache(teacher, IN_ORDER, tmp_path / "c")
  path = tmp_path / "c" / "manifest.json"
  stored = json.loads(path.read_text())
  assert "top_k" in json.dumps(stored)
  from tfkd.storage.digests import from_checked_json, to_checked_json

  manifest = from_checked_json(path.read_text())
  del manifest["top_k"]
  path.write_text(to_checked_json(manifest))
  assert CachedTeacher(tmp_path / "c").top_k is None
  assert len(cache(teacher, IN_ORDER, tmp_path / "c")) == 30
