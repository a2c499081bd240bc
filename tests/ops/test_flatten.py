"""Nested models become one graph with the same outputs, names, weights and trainable flags."""

import numpy as np
import pytest
import tf_keras as keras

from tfkd import deploy, quantization, taps
from tfkd.deploy._interpreter import interpreter, run
from tfkd.features.taps import Reader
from tfkd.models import flatten

layers = keras.layers
IMAGES = np.random.default_rng(0).random((8, 8, 8, 3), np.float32)


def _base():
  inputs = keras.Input((8, 8, 3))
  x = layers.BatchNormalization(name="bn")(layers.Conv2D(4, 3, name="conv")(inputs))
  stem = keras.Sequential([layers.ReLU(name="relu"), layers.Conv2D(4, 1, name="conv")], name="stem")
  return keras.Model(inputs, stem(x), name="base")


def _transfer(**call):
  base = _base()
  inputs = keras.Input((8, 8, 3), name="images")
  x = layers.Dropout(0.5, name="drop")(layers.GlobalAveragePooling2D(name="mean")(base(inputs, **call)))
  return keras.Model(inputs, layers.Dense(3, name="logits")(x), name="transfer")


def _moved(model):
  rng = np.random.default_rng(0)
  model.set_weights([weight + 0.3 * rng.random(weight.shape) for weight in model.get_weights()])
  return model


NAMES = ["images", "base/conv", "base/bn", "base/stem/relu", "base/stem/conv", "mean", "drop", "logits"]


def test_layers_have_paths_as_names_and_equal_weights():
  model = _moved(_transfer())
  flat = flatten(model)
  assert [layer.name for layer in flat.layers] == NAMES
  np.testing.assert_array_equal(flat(IMAGES), model(IMAGES))
  assert flatten(flat) is flat
  flat.layers[1].set_weights([np.zeros_like(weight) for weight in flat.layers[1].get_weights()])
  assert np.any(model.get_layer("base").get_layer("conv").kernel)  # A copy.


def test_a_frozen_base_stays_frozen():
  model = _transfer()
  model.get_layer("base").trainable = False
  model.get_layer("base").get_layer("stem").get_layer("conv").trainable = True  # Without effect, as in Keras.
  assert [v.shape for v in flatten(model).trainable_variables] == [v.shape for v in model.trainable_variables]


def test_a_base_that_is_called_for_inference_keeps_its_statistics():
  model = _moved(_transfer(training=False))
  model.get_layer("drop").rate = 0.0
  flat = flatten(model)
  np.testing.assert_allclose(flat(IMAGES, training=True), model(IMAGES, training=True), rtol=1e-6)
  student = quantization.quantize(model, "w8a8", calibration_data=IMAGES)
  before = [v.numpy() for v in student.variables if "moving_" in v.name]
  student.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
  kernel = student.get_layer("quant_base/conv")._weight_vars[0][0]
  first = kernel.numpy()
  student.fit(IMAGES, np.arange(8) % 3, verbose=0)
  assert len(before) == 2 and np.any(kernel.numpy() != first)
  for a, b in zip(before, (v.numpy() for v in student.variables if "moving_" in v.name), strict=True):
    np.testing.assert_array_equal(a, b)


def test_shared_models_and_several_inputs_and_outputs():
  inner = keras.Input((4,))
  shared = keras.Model(
    inner, {"a": layers.Dense(3, name="a")(inner), "b": layers.Dense(2, name="b")(inner)}, name="two"
  )
  first, second = keras.Input((4,), name="first"), keras.Input((4,), name="second")
  left, right = shared(first), shared(second)
  outputs = {"sum": layers.Add()([left["a"], right["a"]]), "b": right["b"]}
  model = _moved(keras.Model({"x": first, "y": second}, outputs))
  flat = flatten(model)
  rows = np.random.default_rng(0).random((2, 5, 4), np.float32)
  found, expected = (m({"x": rows[0], "y": rows[1]}) for m in (flat, model))
  assert len(flat.weights) == len(model.weights) == 4
  for key in expected:
    np.testing.assert_array_equal(found[key], expected[key])


def test_masks_reach_the_layers_of_a_nested_model():
  inner = keras.Input((5, 4))
  tail = keras.Model(inner, layers.GlobalAveragePooling1D()(inner), name="tail")
  tokens = keras.Input((5,), dtype="int32")
  model = keras.Model(tokens, tail(layers.Embedding(7, 4, mask_zero=True)(tokens)))
  rows = np.array([[1, 2, 0, 0, 0], [3, 4, 5, 6, 0]])
  np.testing.assert_allclose(flatten(model)(rows), model(rows), rtol=1e-6)


def test_a_quantized_base_becomes_integers_and_its_taps_keep_their_names(tmp_path):
  model = _moved(_transfer())
  student = quantization.quantize(model, "w8a8", calibration_data=IMAGES)
  names = [name for name in taps.tappable(model) if name != "images"]
  assert {"base", "base/stem", "base/stem/conv", "mean"} <= set(names) <= set(taps.tappable(student))
  for name in names:
    _, of_model = Reader(model, [name])(IMAGES)
    _, of_student = Reader(student, [name])(IMAGES)
    assert of_student[name].shape == of_model[name].shape
  np.testing.assert_array_equal(*(Reader(student, [name])(IMAGES)[1][name] for name in ("base", "base/stem/conv")))
  path = str(tmp_path / "a.tflite")
  deploy.to_tflite(student, path)
  steps = (
    np.abs(run(interpreter(path), IMAGES) - student(IMAGES))
    / (interpreter(path).get_output_details()[0]["quantization"][0])
  )
  assert steps.max() <= 2


def test_float_layers_may_name_a_nested_model():
  student = quantization.quantize(_transfer(), "w8a8", calibration_data=IMAGES, float_layers=["base/stem"])
  names = {layer.name for layer in student.layers}
  assert {"base/stem/relu", "quant_base/conv", "quant_logits"} <= names
  with pytest.raises(ValueError, match="float_layers names 'bose', but the layers of 'transfer' are images, base/conv"):
    quantization.quantize(_transfer(), "w8a8", float_layers=["bose"])


def test_models_without_a_graph_are_refused():
  with pytest.raises(ValueError, match="only functional and built Sequential models.*got Sequential"):
    flatten(keras.Sequential([layers.Dense(2)]))
