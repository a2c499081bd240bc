"""Bits that differ from layer to layer, and their choice."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from tfkd import deploy, quantization
from tfkd.quantization import ByLayer

pytestmark = pytest.mark.usefixtures("no_trial_conversion")
layers = keras.layers


def _network():
  inputs = keras.Input((12, 12, 3))
  x = layers.Conv2D(16, 3, name="first", activation="relu")(inputs)
  x = layers.SeparableConv2D(32, 3, name="separable", activation="swish")(x)
  x = layers.Conv2D(32, 3, name="wide", activation="relu")(x)
  return keras.Model(inputs, layers.Dense(10, name="last")(layers.GlobalAveragePooling2D()(x)), name="network")


@pytest.fixture(scope="module")
def inputs():
  return np.random.default_rng(0).random((64, 12, 12, 3), np.float32)


def _bits(student):
  wrapped = [layer for layer in student.layers if getattr(layer, "_weight_vars", ())]
  return {layer.layer.name: layer._weight_vars[0][1].num_bits for layer in wrapped}


def test_layers_have_their_bits_and_others_eight(inputs, tmp_path):
  schemes = {"wide": "w4a8", "separable": "w2a8", "last": "w8a8"}
  student = quantization.quantize(_network(), schemes, calibration_data=inputs)
  assert _bits(student) == {"first": 8, "separable_depthwise": 2, "separable_linear": 2, "wide": 4, "last": 8}
  path = str(tmp_path / "a.tflite")
  size = deploy.to_tflite(student, path)
  data = tf.data.Dataset.from_tensor_slices((inputs, np.zeros(64, np.int32))).batch(32)
  assert deploy.evaluate(path, data, student)["worst_steps"] <= 4
  whole = deploy.to_tflite(quantization.quantize(_network(), "w8a8", calibration_data=inputs), path)
  halved = 3 * 3 * 32 * 32 // 2 + (3 * 3 * 16 + 16 * 32) // 2
  assert abs(whole - size - halved) < 200


def test_the_scheme_of_a_student_can_be_written_and_read(inputs, tmp_path):
  student = quantization.quantize(_network(), {"wide": "w4a8", "first": "w8a8"}, calibration_data=inputs)
  scheme = quantization.scheme_of(student)
  assert scheme == quantization.parse_scheme({"wide": "w4a8"}) == ByLayer((("wide", 4),))
  assert quantization.parse_scheme(str(scheme)) == scheme
  quantization.save(student, tmp_path / "a.keras")
  assert quantization.scheme_of(quantization.load(tmp_path / "a.keras")) == scheme
  assert quantization.parse_scheme({"wide": "w8a8"}) == quantization.INT8


def test_a_nested_model_stands_for_its_layers(inputs):
  outer = keras.Input((12, 12, 3))
  base = keras.Model(outer, layers.Conv2D(4, 3, name="b")(layers.Conv2D(4, 3, name="a")(outer)), name="base")
  model = keras.Model(outer, layers.Conv2D(4, 3, name="head")(base(outer)))
  assert _bits(quantization.quantize(model, {"base": "w4a8"})) == {"base/a": 4, "base/b": 4, "head": 8}
  assert _bits(quantization.quantize(model, {"base": "w4a8", "base/b": "w2a8"})) == {
    "base/a": 4,
    "base/b": 2,
    "head": 8,
  }


@pytest.mark.parametrize(
  "schemes, words",
  [
    ({"wid": "w4a8"}, "names 'wid', and the layers with kernels that are quantized are first, separable, wide, last"),
    ({"wide": "w4a4"}, "layer 'wide' has scheme 'w4a4': schemes by layer must be w2a8 to w8a8"),
  ],
)
def test_unknown_layers_and_schemes_are_named(schemes, words):
  with pytest.raises(ValueError, match=words):
    quantization.quantize(_network(), schemes)


def test_sensitivity_is_the_change_of_the_outputs_by_one_kernel(inputs):
  model = _network()
  before = model.get_weights()
  found = quantization.sensitivity(model, inputs, (8, 4, 2))
  assert list(found) == ["first", "separable", "wide", "last"]
  assert all(noise[8] < noise[4] < noise[2] for noise in found.values())
  kernel = model.get_layer("wide").kernel
  original = kernel.numpy()
  step = np.abs(kernel).max((0, 1, 2)) / 7
  expected = model.predict(inputs, verbose=0)
  kernel.assign(np.round(kernel / step) * step)
  changed = model.predict(inputs, verbose=0)
  noise = ((changed - expected) ** 2).mean(0).sum() / expected.var(0).sum()
  np.testing.assert_allclose(found["wide"][4], noise, rtol=1e-3)
  kernel.assign(original)
  for a, b in zip(before, model.get_weights(), strict=True):
    np.testing.assert_array_equal(a, b)


def test_bits_for_a_number_of_bytes_keep_the_file_below_it(inputs, tmp_path):
  model, path = _network(), str(tmp_path / "a.tflite")
  whole = deploy.to_tflite(quantization.quantize(model, "w8a8", calibration_data=inputs), path)
  noise = {"first": {8: 0.0, 4: 0.1}, "separable": {8: 0.0, 4: 9.0}, "wide": {8: 0.0, 4: 1.0}, "last": {8: 0.0, 4: 9.0}}
  chosen = quantization.bits_by_layer(model, inputs, whole - 2000, noise)
  assert chosen == {"wide": "w4a8"}  # 4,608 bytes; "first" costs as much noise for each of its 216 bytes.
  chosen = quantization.bits_by_layer(model, inputs, whole - 4700)
  size = deploy.to_tflite(quantization.quantize(model, chosen, calibration_data=inputs), path)
  assert size <= whole - 4700 + 400  # Metadata.
  assert quantization.bits_by_layer(model, inputs, whole) == {}
  with pytest.raises(ValueError, match="max_bytes is 100, but with four bits in every layer"):
    quantization.bits_by_layer(model, inputs, 100)
