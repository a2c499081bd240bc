"""Layers are read by name in the model's one pass, wherever they are."""

import numpy as np
import pytest
import tf_keras as keras

from tests.objectives.rows import cnn
from tfkd import quantization
from tfkd.taps import Reader, tappable

layers = keras.layers


def _nested():
  """A functional model around a Sequential one, which two of its layers repeat the names of."""
  inner = keras.Sequential(
    [keras.Input((6,)), layers.Dense(5, name="hidden"), layers.BatchNormalization(momentum=0.9, name="bn")],
    name="inner",
  )
  inputs = keras.Input((6,))
  x = layers.Dense(6, name="hidden")(inputs)
  x = layers.Concatenate(name="joined")([inner(x * 2.0), x])
  return keras.Model(inputs, {"a": layers.Dense(3, name="a")(x), "b": layers.Dense(2, name="b")(x)}, name="outer")


@pytest.fixture
def x():
  return np.random.default_rng(0).normal(size=(8, 6)).astype(np.float32)


def test_layers_are_listed_with_their_shapes():
  assert list(tappable(cnn(4, "student")))[:4] == ["conv0", "bn0", "relu0", "pool0"]
  assert tappable(cnn(4, "student"))["relu1"].as_list() == [None, 4, 4, 8]
  nested = tappable(_nested())
  assert {"hidden", "inner/hidden", "inner/bn", "inner", "joined", "a", "b"} <= set(nested)
  assert nested["inner/bn"].as_list() == [None, 5]


def test_taps_are_what_the_layers_gave_and_outputs_the_models(x):
  model = _nested()
  outputs, features = Reader(model, ["hidden", "inner/bn", "inner"])(x, training=False)
  expected = model(x, training=False)
  np.testing.assert_allclose(outputs["a"], expected["a"], rtol=1e-6)
  np.testing.assert_allclose(outputs["b"], expected["b"], rtol=1e-6)
  hidden = model.get_layer("hidden")(x)
  np.testing.assert_allclose(features["hidden"], hidden, rtol=1e-6)
  np.testing.assert_allclose(features["inner/bn"], model.get_layer("inner")(2 * hidden), rtol=1e-5)
  np.testing.assert_array_equal(features["inner/bn"], features["inner"])


def test_reading_in_training_moves_batch_normalisation_once(x):
  model = _nested()
  _, features = Reader(model, ["inner/hidden"])(x, training=True)
  moved = model.get_layer("inner").get_layer("bn").moving_mean
  np.testing.assert_allclose(moved, 0.1 * features["inner/hidden"].numpy().mean(axis=0), rtol=1e-4, atol=1e-7)


def test_a_quantized_student_is_read_by_the_float_names():
  images = np.random.default_rng(0).uniform(size=(4, 8, 8, 3)).astype(np.float32)
  model = quantization.quantize(cnn(4, "student"), "w8a8", calibration_data=images)
  assert "relu0" in tappable(model) and not any("quant_" in name for name in tappable(model))
  outputs, features = Reader(model, ["relu0", "quant_relu1"])(images, training=False)
  np.testing.assert_allclose(outputs, model(images, training=False))
  # What the next layer sees: fake-quantized.
  assert len(np.unique(features["relu0"])) <= 256


def test_a_sequential_model_built_on_its_first_batch_is_read(x):
  model = keras.Sequential([layers.Dense(3, name="first"), layers.Dense(2)])
  model(x)
  _, features = Reader(model, ["first"])(x)
  np.testing.assert_allclose(features["first"], model.get_layer("first")(x), rtol=1e-6)


def test_the_last_part_of_a_nested_name_is_enough_where_it_is_unique(x):
  _, features = Reader(_nested(), ["bn"])(x, training=False)
  assert features["bn"].shape == (8, 5)
  inputs = keras.Input((6,))
  blocks = [keras.Sequential([keras.Input((6,)), layers.Dense(6, name="dense")], name=name) for name in ("one", "two")]
  with pytest.raises(ValueError, match="several layers 'dense': one/dense, two/dense"):
    Reader(keras.Model(inputs, blocks[1](blocks[0](inputs))), ["dense"])


def test_an_unknown_layer_gives_the_nearest_names_and_all():
  with pytest.raises(ValueError, match="student has no layer 'relu_1'; did you mean 'relu1' or 'relu0'.*conv0, bn0"):
    Reader(cnn(4, "student"), ["relu_1"])


def test_models_without_a_graph_are_refused():
  class Subclassed(keras.Model):
    pass

  for model in (Subclassed(name="mine"), keras.Sequential([layers.Dense(2)], name="mine")):
    with pytest.raises(ValueError, match="mine has no graph of layers to tap"):
      tappable(model)


def test_the_models_own_layers_stay_as_they_were(x):
  model = _nested()
  Reader(model, ["inner/bn"])(x)
  assert model.get_layer("joined").output.shape.as_list() == [None, 11]  # Raises for a layer called anew.
