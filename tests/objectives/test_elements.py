"""Objectives on every token or pixel: masks and weights against float64 numpy, one replica and two, float and w8a8."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import tfkd
from tests.losses import references
from tfkd import objectives as o
from tfkd import quantization
from tfkd.features.taps import Reader

layers = keras.layers
RNG = np.random.default_rng(0)
SIZES = {"classes": 4, "labels": 3, "numbers": 2}
LOSSES = {
  "classes": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
  "labels": keras.losses.BinaryCrossentropy(from_logits=True),
  "numbers": "mse",
}
TOKENS = RNG.integers(1, 9, (10, 6)) * (np.arange(6) < RNG.integers(2, 7, 10)[:, None])
PICTURES = RNG.normal(size=(8, 5, 4, 3)).astype(np.float32)


def _heads(x, layer):
  return {name: layer(size, name=name, bias_initializer="random_normal")(x) for name, size in SIZES.items()}


def tokens(name, width):
  inputs = keras.Input((6,), dtype="int32")
  x = layers.Embedding(9, 5, mask_zero=True, embeddings_initializer=keras.initializers.RandomNormal())(inputs)
  x = layers.Dense(width, "tanh", name="hidden")(x)
  return keras.Model(inputs, _heads(x, layers.Dense), name=name)


def pixels(name, width):
  inputs = keras.Input((5, 4, 3))
  x = layers.ReLU(name="hidden")(layers.Conv2D(width, 3, padding="same")(inputs))
  return keras.Model(inputs, _heads(x, lambda size, **options: layers.Conv2D(size, 1, **options)), name=name)


def _of_elements():
  of_classes = {"output": "classes"}
  return [
    o.SoftTargets(2.0, form="kl", name="kl", **of_classes),
    o.SoftTargets(2.0, form="cross_entropy", name="cross_entropy", **of_classes),
    o.SoftTargets(2.0, form="reverse_kl", name="reverse_kl", **of_classes),
    o.SoftTargets(2.0, form="jsd", beta=0.3, name="jsd", **of_classes),
    o.Decoupled(2.0, beta=3.0, **of_classes),
    o.Normalized(2.0, **of_classes),
    o.BinarySoftTargets(2.0, output="labels"),
    o.MatchOutputs("log_cosh", output="numbers"),
    o.MatchFeatures("hidden", "hidden", loss="mse", output="numbers"),
  ]


def _expected(teacher, student, classes):
  """float64 losses [n] of all elements by objective."""
  (t, t_hidden), (s, s_hidden) = teacher, student
  t, s = ({name: np.float64(part).reshape(-1, part.shape[-1]) for name, part in x.items()} for x in (t, s))
  t_hidden, s_hidden = (np.float64(x).reshape(-1, x.shape[-1]) for x in (t_hidden, s_hidden))
  pair, classes = (t["classes"], s["classes"]), classes.ravel()
  return {
    "kl": 4 * references.soft_target_kl(*pair, 2.0),
    "cross_entropy": 4 * references.soft_target_cross_entropy(*pair, 2.0),
    "reverse_kl": 4 * references.soft_target_kl(*pair[::-1], 2.0),
    "jsd": 4 * references.soft_target_jsd(*pair, 2.0, 0.3),
    "decoupled": references.decoupled(*pair, classes, 2.0, 1.0, 3.0),
    "normalized": references.normalized(*pair, classes, 2.0),
    "binary_soft_targets": 4 * references.binary_soft_target_kl(t["labels"], s["labels"], 2.0),
    "match_outputs": references.keras_loss(t["numbers"], s["numbers"], "log_cosh"),
    "match_features": references.keras_loss(t_hidden, s_hidden),
  }


CASES = {
  "tokens": (tokens, TOKENS, None),
  "pixels": (pixels, PICTURES, None),
  "pixels, w8a8": (pixels, PICTURES, "w8a8"),
}


def _distiller(case, strategy, objectives):
  make, x, scheme = CASES[case]
  with strategy.scope():
    keras.utils.set_random_seed(5)
    teacher, student = make("teacher", 6), make("student", 6)
    for model in (teacher, student):  # Otherwise outputs are too small to tell the methods apart.
      model.set_weights([3 * weight for weight in model.get_weights()])
    if scheme is not None:
      student = quantization.quantize(student, scheme, calibration_data=x)
    distiller = tfkd.Distiller(teacher, student, objectives)
    distiller.compile(keras.optimizers.SGD(1e-3), LOSSES)
  return teacher, distiller


def _data(x):
  shape = x.shape[:-1] if x.ndim == 4 else x.shape
  labels = {"labels": RNG.integers(0, 2, (*shape, 3)), "numbers": np.zeros((*shape, 2), np.float32)}
  return labels | {"classes": RNG.integers(0, 4, shape)}, RNG.choice([0.0, 0.5, 1.0, 2.0], shape).astype(np.float32)


def _total_weights(x, weights):
  """Weights of elements whose mean loss Keras reports: with a mask, the mean over the valid elements."""
  valid = x > 0 if x.ndim == 2 else np.ones(weights.shape)
  return (weights * valid * valid.size / valid.sum()).ravel()


@pytest.mark.parametrize("case", ["tokens", "pixels, w8a8"])
def test_masks_and_weights_on_one_replica_and_two(case, two_replicas, no_trial_conversion):
  x = CASES[case][1]
  labels, weights = _data(x)
  by_output = dict.fromkeys(SIZES, weights)
  ends = []
  for strategy in (tf.distribute.get_strategy(), two_replicas):
    teacher, distiller = _distiller(case, strategy, _of_elements())
    logs = distiller.evaluate(x, labels, sample_weight=by_output, batch_size=len(x), verbose=0, return_dict=True)
    pair = (Reader(model, ["hidden"])(tf.constant(x)) for model in (teacher, distiller.student))
    expected = _expected(*((outputs, features["hidden"]) for outputs, features in pair), labels["classes"])
    for name, losses in expected.items():
      assert losses.mean() > 1e-4, name
      value = (losses * _total_weights(x, weights)).mean()
      np.testing.assert_allclose(logs[name], value, rtol=2e-4, err_msg=name)
    distiller.fit(x, labels, sample_weight=by_output, batch_size=len(x), epochs=2, verbose=0)
    ends.append(distiller.student.get_weights())
  for one, two in zip(*ends, strict=True):
    np.testing.assert_allclose(one, two, atol=1e-5)


@pytest.mark.parametrize("case", ["tokens", "pixels"])
def test_relations_compare_the_elements_that_count(case):
  x = CASES[case][1]
  labels, weights = _data(x)
  teacher, distiller = _distiller(case, tf.distribute.get_strategy(), [o.Dist(2.0, output="classes")])
  logs = distiller.test_on_batch(x, labels, sample_weight=dict.fromkeys(SIZES, weights), return_dict=True)
  total = _total_weights(x, weights)
  rows = (np.float64(model(x)["classes"]).reshape(-1, 4)[total > 0] for model in (teacher, distiller.student))
  np.testing.assert_allclose(logs["dist"], references.dist(*rows, 2.0) * total.mean(), rtol=1e-4)
