"""Quantization-aware distillation: it stops where nothing is to be gained, and never makes a student worse."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from tfkd import quantization

layers = keras.layers


@pytest.fixture(scope="module")
def trained():
  """A classifier of random points and the points."""
  keras.utils.set_random_seed(0)
  x = np.random.default_rng(0).normal(size=(512, 8, 8, 1)).astype(np.float32)
  y = (x[:, :4].sum((1, 2, 3)) > 0) * 2 + (x[:, :, :4].sum((1, 2, 3)) > 0)
  inputs = keras.Input((8, 8, 1))
  hidden = layers.Conv2D(8, 3, activation="relu")(layers.Conv2D(8, 3, activation="relu")(inputs))
  model = keras.Model(
    inputs, layers.Dense(4)(layers.Dense(16, activation="relu", name="hidden")(layers.Flatten()(hidden)))
  )
  model.compile(keras.optimizers.Adam(5e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
  model.fit(x, y, epochs=15, verbose=0)
  return model, x, y


def test_a_scheme_that_changes_few_decisions_is_not_trained(trained):
  model, x, _ = trained
  found = quantization.distill(model, None, "w8a8", x, acceptable_change=0.05)
  assert found.epochs == 0 and found.history == {} and found.agreement == found.agreement_before >= 0.95
  assert str(quantization.scheme_of(found.student)) == "w8a8"


@pytest.mark.parametrize("scheme", ["w2a8", "w2a2-lsq", {"hidden": "w2a8"}])
def test_training_restores_decisions_of_the_float_student_without_labels(trained, scheme):
  model, x, y = trained
  before = model.get_weights()
  data = x if scheme == "w2a8" else tf.data.Dataset.from_tensor_slices((x, 0 * y)).batch(64)  # Labels are not read.
  found = quantization.distill(model, model, scheme, data, epochs=6, acceptable_change=0.0)
  assert found.agreement > found.agreement_before and 1 <= found.epochs <= 6
  assert quantization.scheme_of(found.student) == quantization.parse_scheme(scheme)
  same = found.student.predict(x, verbose=0).argmax(1) == model.predict(x, verbose=0).argmax(1)
  np.testing.assert_allclose(same.mean(), found.agreement, atol=1e-6)
  for a, b in zip(before, model.get_weights(), strict=True):
    np.testing.assert_array_equal(a, b)


def test_a_training_that_only_harms_leaves_the_student_as_it_was(trained):
  model, x, _ = trained
  found = quantization.distill(
    model, None, "w3a8", x, epochs=2, acceptable_change=0.0, optimizer=keras.optimizers.SGD(10.0)
  )
  assert found.agreement == found.agreement_before and found.epochs > 0


def test_one_logit_is_refused(trained):
  model = keras.Sequential([keras.Input((4,)), layers.Dense(8, activation="relu"), layers.Dense(1)])
  with pytest.raises(ValueError, match="class"):
    quantization.distill(model, None, "w8a8", np.zeros((8, 4), np.float32))
