"""Layers are read by name in the model's forward pass, at any depth of nesting."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from tests.objectives.rows import cnn
from tfkd import quantization
from tfkd.features.taps import Keras3Reader, Reader, tappable

layers = keras.layers


def _nested():
  """A functional model around a `Sequential` one; both have a layer called `hidden`."""
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
  assert list(tappable(cnn(4, "student")))[:4] == ["conv0", "bn0", "relu0", "scores0"]
  assert tappable(cnn(4, "student"))["relu1"].as_list() == [None, 4, 4, 8]
  nested = tappable(_nested())
  assert {"hidden", "inner/hidden", "inner/bn", "inner", "joined", "a", "b"} <= set(nested)
  assert nested["inner/bn"].as_list() == [None, 5]


def test_taps_equal_the_layers_outputs_and_the_models_outputs_are_unchanged(x):
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
  # The next layer's input, which is fake-quantized.
  assert len(np.unique(features["relu0"])) <= 256


def test_a_sequential_model_built_on_its_first_batch_is_read(x):
  model = keras.Sequential([layers.Dense(3, name="first"), layers.Dense(2)])
  model(x)
  _, features = Reader(model, ["first"])(x)
  np.testing.assert_allclose(features["first"], model.get_layer("first")(x), rtol=1e-6)


def test_the_last_part_of_a_nested_name_is_enough_if_it_is_unique(x):
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
  assert model.get_layer("joined").output.shape.as_list() == [None, 11]  # Raises for a layer that was called again.


RNG = np.random.default_rng(0)
TOKENS = np.array([[3, 1, 0, 0], [2, 0, 1, 5]], np.int32)
SEQUENCES = RNG.normal(size=(2, 4, 6)).astype(np.float32)


@keras.utils.register_keras_serializable(package="tests")
class Scaled(layers.Layer):
  """Reads a tensor inside a structure, a constant, and `training`."""

  def call(self, x, extras=None, by=1.0, training=None):
    return by * x * extras["factor"][0] + (1.0 if training else 0.0)


def _attention():
  a, b = keras.Input((4, 6)), keras.Input((4, 6))
  allowed = keras.Input((4, 4), dtype="bool")
  attend = layers.MultiHeadAttention(2, 3, dropout=0.5, name="attend")
  y, scores = attend(a, value=b, attention_mask=allowed, return_attention_scores=True)
  y = layers.MultiHeadAttention(2, 3, name="key")(y, b, key=a)
  return keras.Model([a, b, allowed], {"y": y, "scores": scores}), [
    SEQUENCES,
    SEQUENCES[::-1],
    np.tri(4)[None] > [[[0]]],
  ]


def _masked():
  tokens = keras.Input((4,), dtype="int32")
  x = layers.Embedding(7, 6, mask_zero=True, name="embedding")(tokens)
  x = layers.Dropout(0.5, name="dropout")(x)
  x = layers.MultiHeadAttention(2, 3, name="attend")(x, x)
  x, *state = layers.LSTM(5, return_sequences=True, return_state=True, name="lstm")(x)
  x = layers.SimpleRNN(5, return_sequences=True, name="rnn")(x, initial_state=state[0])
  return keras.Model(tokens, layers.Dense(3, name="tags")(x)), TOKENS


def _given_mask():
  x, mask = keras.Input((4, 6)), keras.Input((4,), dtype="bool")
  hidden = layers.SimpleRNN(5, return_sequences=True, name="rnn")(x, mask=mask)
  inner = keras.Sequential([keras.Input((4, 5)), layers.SimpleRNN(3, name="inner_rnn")], name="inner")
  return keras.Model([x, mask], inner(hidden, mask=mask)), [SEQUENCES, TOKENS > 0]


def _shared():
  x = keras.Input((6,))
  dense = layers.Dense(6, activation="tanh", name="dense")
  first, second = dense(x), dense(2.0 * x)
  deep = dense(layers.ReLU(name="relu")(dense(first)))
  return keras.Model(x, [first + second, deep]), SEQUENCES[:, 0]


def _operators():
  x = keras.Input((4, 6))
  y = tf.concat([x[:, ::2], tf.reshape(x, [-1, 2, 12])[..., :6]], axis=1)
  first, second = tf.split(y, 2, axis=1, name="split")
  y = tf.where(first > 0, first, 1.0 - second) @ tf.constant(SEQUENCES[0, :1].T)
  y = Scaled(name="scaled")(y, extras={"factor": [tf.reduce_max(x, axis=[1, 2], keepdims=True)]}, by=0.5)
  return keras.Model(x, y / 3.0), SEQUENCES


def _named_inputs():
  inputs = {"b": keras.Input((4,), dtype="int32", name="b"), "a": keras.Input((6,), name="a")}
  one = keras.Model(
    [inputs["a"], inputs["b"]], layers.Concatenate(name="join")([inputs["a"], tf.cast(inputs["b"], tf.float32)])
  )
  c, d = keras.Input((6,), name="c"), keras.Input((4,), name="d", dtype="int32")
  inner = keras.Model(
    {"c": c, "d": d}, {"sum": layers.Dense(2, name="of_c")(c), "cast": tf.cast(d, tf.float32)}, name="inner"
  )
  found = inner(inputs={"c": inputs["a"], "d": inputs["b"]})
  return keras.Model(inputs, [one([inputs["a"], inputs["b"]]), found]), {"a": SEQUENCES[:, 0], "b": TOKENS}


def _frozen_inside():
  def normalized(name, width):
    return keras.Sequential(
      [keras.Input((width,)), layers.BatchNormalization(name="bn"), layers.Dropout(0.5), layers.Dense(5, name="dense")],
      name=name,
    )

  inputs = keras.Input((6,))
  x = normalized("backbone", 6)(inputs, training=False)
  x = keras.Sequential([keras.Input((5,)), normalized("deepest", 5)], name="deep")(x)
  twice = normalized("twice", 5)
  return keras.Model(inputs, twice(twice(x), training=False)), SEQUENCES[:, 0]


KINDS = {
  "keyword arguments and several outputs": _attention,
  "masks of an embedding, and states": _masked,
  "masks that are given": _given_mask,
  "layers called several times": _shared,
  "operators and structures": _operators,
  "dicts, nested models": _named_inputs,
  "nested models in inference mode": _frozen_inside,
}


@pytest.mark.parametrize("kind", KINDS)
def test_readings_equal_the_models_own_values_to_the_last_bit(kind):
  model, x = KINDS[kind]()
  x = tf.nest.map_structure(tf.constant, x)
  names = list(tappable(model))
  read = Reader(model, names)
  for training in (False, True, None):
    start = model.get_weights()
    keras.utils.set_random_seed(1)
    expected = model(x, training=training)
    moved = model.get_weights()
    model.set_weights(start)
    keras.utils.set_random_seed(1)
    outputs, features = read(x, training=training)
    tf.nest.map_structure(np.testing.assert_array_equal, outputs, expected)
    for ours, theirs in zip(tf.nest.flatten(outputs), tf.nest.flatten(expected), strict=True):
      masks = getattr(ours, "_keras_mask", None), getattr(theirs, "_keras_mask", None)
      assert (masks[0] is None) == (masks[1] is None)
      if masks[0] is not None:
        np.testing.assert_array_equal(*masks)
    for ours, theirs in zip(model.get_weights(), moved, strict=True):
      np.testing.assert_array_equal(ours, theirs)
    for name in names:
      assert features[name].shape[1:] == tappable(model)[name][1:]
  _, features = read(x, training=False)
  for name in names:
    layer, _, index = name.partition(":")
    if "/" not in name:
      output = tf.nest.flatten(model.get_layer(layer).get_output_at(-1))[int(index or 0)]
      np.testing.assert_array_equal(features[name], keras.Model(model.inputs, output)(tf.nest.flatten(x)), name)
  traced, _ = tf.function(lambda x: read(x, training=False))(x)
  tf.nest.map_structure(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), traced, model(x))


def test_layers_of_several_outputs_are_tapped_by_number():
  model, x = _attention()
  assert tappable(model)["attend:1"].as_list() == [None, 2, 4, 4] and "attend" not in tappable(model)
  with pytest.raises(ValueError, match="layer 'attend' of .* has several outputs: name one of attend:0, attend:1"):
    Reader(model, ["attend"])
  with pytest.raises(
    ValueError, match="layer 'attend' of .* has 2 outputs and no number 2: name one of attend:0, attend:1"
  ):
    Reader(model, ["attend:2"])
  with pytest.raises(ValueError, match="layer 'key' of .* has one output: name it 'key', without a number"):
    Reader(model, ["key:0"])
  inputs = keras.Input((4, 6))
  outer = keras.Model(inputs, keras.Sequential([keras.Input((4, 6)), _states()], name="deep")(inputs))
  assert tappable(outer)["deep/inner/states:2"].as_list() == [None, 3]
  Reader(outer, ["states:2"])
  with pytest.raises(ValueError, match="'states' .* several outputs: name one of deep/inner/states:0"):
    Reader(outer, ["states"])


def _states():
  inputs = keras.Input((4, 6))
  return keras.Model(inputs, layers.LSTM(3, return_state=True, name="states")(inputs)[0], name="inner")


def test_names_that_collide_are_distinguished_or_refused(x):
  inputs = keras.Input((6,))
  floats = keras.Model(inputs, layers.ReLU(name="quant_relu")(layers.Dense(2, name="relu")(inputs)))
  assert list(tappable(floats)) == ["relu", "quant_relu"]
  _, features = Reader(floats, ["relu", "quant_relu"])(x)
  np.testing.assert_array_equal(features["relu"], floats.get_layer("relu")(x))
  slashed = layers.Dense(5, name="block/dense")(layers.Dense(6, name="block")(inputs))
  inner = keras.Sequential([keras.Input((5,)), layers.Dense(4, name="dense")], name="block/dense_1")
  model = keras.Model(inputs, inner(slashed), name="mine")
  _, features = Reader(model, ["block/dense", "block", "block/dense_1/dense"])(x)
  assert [features[name].shape[1] for name in ("block/dense", "block", "block/dense_1/dense")] == [5, 6, 4]
  named_alike = keras.Sequential([keras.Input((5,)), layers.Dense(4, name="dense")], name="block")
  model = keras.Model(inputs, named_alike(layers.Dense(5, name="block/dense")(inputs)), name="mine")
  with pytest.raises(ValueError, match="mine has several layers 'block/dense': .*Rename one of them"):
    Reader(model, ["block/dense"])


def test_layers_inside_a_model_with_a_custom_call_cannot_be_tapped(x):
  class Doubled(keras.Model):
    def call(self, inputs, training=None, mask=None):
      return 2.0 * super().call(inputs, training=training, mask=mask)

  inputs = keras.Input((6,))
  model = Doubled(inputs, layers.Dense(3, name="dense")(inputs), name="doubled")
  with pytest.raises(ValueError, match="doubled has no graph of layers to tap: .*without a `call` of its own"):
    Reader(model, ["dense"])
  outer = keras.Model(inputs, layers.ReLU()(model(inputs)))
  assert list(tappable(outer))[0] == "doubled" and "doubled/dense" not in tappable(outer)
  _, features = Reader(outer, ["doubled"])(x)
  np.testing.assert_array_equal(features["doubled"], model(x))


def test_inputs_that_do_not_fit_raise_the_models_error(x):
  model = _nested()
  for call in (model, Reader(model, ["hidden"])):
    with pytest.raises(ValueError, match='"outer" is incompatible with the layer: expected shape=\\(None, 6\\), found'):
      call(x[:, :5])


def test_gradients_reach_weights_through_readings(x):
  model = _nested()
  with tf.GradientTape() as tape:
    _, features = Reader(model, ["inner/bn", "a"])(x, training=True)
    loss = tf.reduce_sum(features["inner/bn"] ** 2) + tf.reduce_sum(features["a"] ** 2)
  gradients = tape.gradient(loss, model.trainable_variables)
  assert sum(g is not None for g in gradients) == len(gradients) - 2  # The head "b" is not in it.


class TestKeras3:
  def test_outputs_keep_their_structure_and_layers_their_numbers(self):
    import keras as keras3

    a, b = keras3.Input((4, 6), name="a"), keras3.Input((4, 6), name="b")
    y, scores = keras3.layers.MultiHeadAttention(2, 3, name="attend")(a, value=b, return_attention_scores=True)
    dense = keras3.layers.Dense(6, name="dense")
    y = dense(keras3.layers.ReLU(name="relu")(dense(y)))
    model = keras3.Model({"a": a, "b": b}, {"y": y, "scores": scores}, name="theirs")
    assert list(tappable(model)) == ["attend:0", "attend:1", "relu", "dense"]
    batch = {"a": tf.constant(SEQUENCES), "b": tf.constant(SEQUENCES[::-1])}
    outputs, features = Keras3Reader(model, ["attend:1", "dense"])(batch, training=False)
    expected = model(batch, training=False)
    assert set(outputs) == {"y", "scores"}
    for name, feature in (("y", "dense"), ("scores", "attend:1")):
      np.testing.assert_array_equal(outputs[name], expected[name])
      np.testing.assert_array_equal(features[feature], expected[name])  # The last call of a layer.
    with pytest.raises(ValueError, match="'attend' of theirs has several outputs: name one of attend:0, attend:1"):
      Keras3Reader(model, ["attend"])

  def test_sequential_models_are_read_and_models_with_a_custom_call_are_not(self):
    import keras as keras3

    model = keras3.Sequential([keras3.Input((6,)), keras3.layers.Dense(4, name="first"), keras3.layers.Dense(3)])
    batch = tf.constant(SEQUENCES[:, 0])
    outputs, features = Keras3Reader(model, ["first"])(batch)
    np.testing.assert_array_equal(outputs, model(batch))
    np.testing.assert_array_equal(features["first"], model.layers[0](batch))

    class Subclassed(keras3.Model):
      def call(self, inputs):
        return inputs

    for other in (Subclassed(name="mine"), keras3.Sequential([keras3.layers.Dense(2)], name="mine")):
      with pytest.raises(ValueError, match="mine has no graph of layers to tap"):
        tappable(other)
