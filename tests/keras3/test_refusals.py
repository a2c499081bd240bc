"""Models and layers that are refused, and conversions of the user's own layers."""

import keras as keras3
import numpy as np
import pytest
import tf_keras as keras

import tfkd
from tests.keras3.comparison import TOLERANCE, difference, randomize
from tfkd import from_keras3, to_keras3
from tfkd.keras3 import table

L = keras3.layers
VECTORS = np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32)


class Scale(L.Layer):
  """Has a weight of its own."""

  def build(self, input_shape):
    self.factor = self.add_weight(shape=(input_shape[-1],), initializer="ones", name="factor")

  def call(self, inputs):
    return inputs * self.factor


class TheirScale(keras.layers.Layer):
  """Is `Scale` in tf_keras."""

  def build(self, input_shape):
    self.factor = self.add_weight("scale", shape=(input_shape[-1],))

  def call(self, inputs):
    return inputs * self.factor


class Doubled(L.Dense):
  """Is a Dense layer with another call."""

  def call(self, inputs):
    return 2.0 * super().call(inputs)


class Subclassed(keras3.Model):
  """Has a call of its own."""

  def __init__(self):
    super().__init__()
    self.dense = L.Dense(2)

  def call(self, inputs):
    return self.dense(inputs)


def _with(*layers):
  return randomize(keras3.Sequential([keras3.Input((8,)), *layers]))


def test_own_layers_are_converted_by_the_given_functions():
  model = _with(Scale(name="scale"), L.Dense(2), Doubled(3))

  def doubled(layer):
    made = keras.layers.Dense(layer.units)
    made.build((None, 2))
    made.set_weights([2.0 * np.asarray(weight) for weight in layer.weights])
    return made

  made = from_keras3(model, layers={Scale: lambda layer: TheirScale(), Doubled: doubled})
  assert difference(np.asarray(model(VECTORS)), made(VECTORS).numpy()) < TOLERANCE
  assert [layer.name for layer in made.layers] == [layer.name for layer in model.layers]
  back = to_keras3(made, layers={TheirScale: lambda layer: Scale()})
  assert difference(np.asarray(model(VECTORS)), np.asarray(back(VECTORS))) < TOLERANCE


def test_all_unknown_layers_are_named_at_once():
  model = _with(Scale(name="one"), _with(Doubled(8, name="two")), L.Lambda(lambda x: x, name="three"))
  with pytest.raises(ValueError, match="'one' .Scale. has no counterpart.*layers={Scale: convert}") as error:
    from_keras3(model)
  for part in (
    "'two' (Doubled) is a subclass of Dense",
    "layers={Doubled: convert}",
    "'three' (Lambda) holds a Python",
  ):
    assert part in str(error.value)


def test_a_conversion_with_other_weights_is_refused():
  with pytest.raises(ValueError, match=r"'one' .Scale. has weights of shapes \[\(8,\)\], .* Dense has"):
    from_keras3(_with(Scale(name="one")), layers={Scale: lambda layer: keras.layers.Dense(8)})
  with pytest.raises(TypeError, match="Scale. returned str: return a layer of tf_keras"):
    from_keras3(_with(Scale()), layers={Scale: lambda layer: "scale"})


@pytest.mark.parametrize(
  "make, error, message",
  [
    (Subclassed, ValueError, "Subclassed. is subclassed with a call of its own"),
    (lambda: keras3.Sequential([keras3.Input((8,)), Subclassed()]), ValueError, "subclassed with a call of its own"),
    (lambda: keras3.Sequential([L.Dense(2)]), ValueError, "is not built.*keras.Input"),
    (lambda: keras.Sequential([keras.Input((8,))]), TypeError, "is of tf_keras already"),
    (lambda: L.Dense(2), TypeError, "model is a Dense"),
    (lambda: 3, TypeError, "model is a int"),
  ],
)
def test_what_has_no_graph_is_refused(make, error, message):
  with pytest.raises(error, match=message):
    from_keras3(make())


@pytest.mark.parametrize(
  "make, message",
  [
    (lambda: L.Dense(2, lora_rank=2), "LoRA|lora_rank"),
    (lambda: L.Dense(2, activation=lambda x: x), "has the activation"),
    (lambda: L.Dense(2, activation="sparsemax"), "has the activation sparsemax"),
    (lambda: L.Dense(2, kernel_regularizer=lambda x: 0.0), "kernel_regularizer"),
  ],
)
def test_options_that_tf_keras_lacks_are_refused(make, message):
  with pytest.raises(ValueError, match=message):
    from_keras3(_with(make()))


def test_a_quantized_model_is_refused():
  model = _with(L.Dense(2, name="last"))
  model.quantize("int8")
  with pytest.raises(ValueError, match="'last' .Dense. is quantized .*convert the float model"):
    from_keras3(model)


def test_another_backend_is_refused(monkeypatch):
  model = _with(L.Dense(2))
  monkeypatch.setattr(keras3.backend, "backend", lambda: "jax")
  with pytest.raises(RuntimeError, match="backend 'jax'.*KERAS_BACKEND=tensorflow"):
    from_keras3(model)
  with pytest.raises(RuntimeError, match="backend 'jax'"):
    to_keras3(keras.Sequential([keras.Input((8,)), keras.layers.Dense(2)]))


@pytest.mark.parametrize("name", sorted(table.REFUSED))
def test_each_refusal_says_what_to_do(name):
  assert ":" in table.REFUSED[name]


class TheirModel(keras.Model):
  """Has a call of its own."""

  def call(self, inputs):
    return inputs


@pytest.mark.parametrize(
  "make, error, message",
  [
    (lambda: keras3.Sequential([keras3.Input((8,))]), TypeError, "is of Keras 3 already"),
    (lambda: 3, TypeError, "model is a int"),
    (TheirModel, ValueError, "TheirModel. is subclassed"),
    (lambda: keras.Sequential([keras.layers.Dense(2)]), ValueError, "is not built"),
    (lambda: _theirs(keras.layers.LocallyConnected1D(2, 3)), ValueError, "LocallyConnected1D. has no counterpart"),
    (lambda: _theirs(keras.layers.Dense(2, activation="hard_sigmoid")), ValueError, "hard_sigmoid"),
    (lambda: _theirs(keras.layers.Lambda(lambda x: x)), ValueError, "Lambda. has no counterpart"),
  ],
)
def test_the_way_back_refuses_what_keras_3_lacks(make, error, message):
  with pytest.raises(error, match=message):
    to_keras3(make())


def _theirs(layer):
  return keras.Sequential([keras.Input((8, 3)), layer])


def test_the_way_back_refuses_quantized_models_and_fixed_training():
  model = keras.Sequential(
    [keras.Input((8, 8, 3)), keras.layers.Conv2D(2, 3, activation="relu"), keras.layers.Flatten()]
  )
  with pytest.raises(ValueError, match="is quantized: convert the float model"):
    to_keras3(tfkd.quantization.quantize(model, "w8a8"))
  inputs = keras.Input((8,))
  with pytest.raises(ValueError, match="training=False.*trainable=False"):
    to_keras3(keras.Model(inputs, keras.layers.BatchNormalization()(inputs, training=False)))
