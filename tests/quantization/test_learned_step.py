"""Trained steps against the formulas of LSQ and LSQ+ in float64, and the students that are trained with them."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from tfkd import deploy, quantization
from tfkd.quantization import LearnedStep, LearnedStepFeatures, LearnedStepIntegers, LearnedStepWeights
from tfkd.quantization.learned_step import best_step, learned_range, learned_relu, learned_step

layers = keras.layers
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def _reference(values, step, low, high, upstream):
  """Returns q, and the gradients of sum(upstream * q) for values and step (Esser et al. 2020, eq. 1-3 and 5)."""
  scaled = np.float64(values) / step
  levels = np.clip(np.round(scaled), low, high)
  inside = (scaled > low) & (scaled < high)
  of_step = np.where(inside, np.round(scaled) - scaled, np.where(scaled <= low, low, high))
  return levels * step, upstream * inside, upstream * of_step


def _gradients(function, *variables, upstream):
  with tf.GradientTape() as tape:
    tape.watch(variables)
    result = function(*variables)
  return result.numpy(), *(g.numpy() for g in tape.gradient(result, variables, tf.constant(upstream, result.dtype)))


@pytest.mark.parametrize("low, high", [(-2, 1), (-8, 7), (-127, 127), (0, 1), (0, 15)])
def test_values_and_gradients_of_weights_equal_the_formula(low, high):
  rng = np.random.default_rng(0)
  values, upstream = rng.normal(size=(3, 3, 5, 7)), rng.normal(size=(3, 3, 5, 7))
  step = rng.uniform(0.5, 2.0, (1, 1, 1, 7)) / high
  q, of_values, of_step = _gradients(
    lambda v, s: learned_step(v, s, low, high), tf.constant(values), tf.constant(step), upstream=upstream
  )
  expected = _reference(values, step, low, high, upstream)
  np.testing.assert_allclose(q, expected[0], rtol=1e-12)
  np.testing.assert_array_equal(of_values, expected[1])
  np.testing.assert_allclose(of_step, expected[2].sum((0, 1, 2), keepdims=True), rtol=1e-10)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("zero_point", [-1.0, 0.3, 1.7, 2.2, 300.0])
def test_values_and_gradients_of_signed_features_equal_the_formula(bits, zero_point):
  rng = np.random.default_rng(0)
  values, upstream = rng.normal(size=(2, 4000)).astype(np.float32)
  step, highest = np.float32(3 / 2**bits), 2**bits - 1
  zero = np.round(np.clip(zero_point, 0, highest))
  q, of_values, of_step, of_zero = _gradients(
    lambda v, s, z: learned_range(v, s, z, bits),
    tf.constant(values), tf.constant(step), tf.constant(zero_point, tf.float32), upstream=upstream,
  )  # fmt: skip
  expected = _reference(values, step, -zero, highest - zero, upstream)
  np.testing.assert_allclose(q, expected[0], atol=1e-5)
  np.testing.assert_array_equal(of_values, expected[1].astype(np.float32))
  np.testing.assert_allclose(of_step, expected[2].sum(), rtol=1e-4, atol=1e-3)
  # LSQ+'s offset is -step * zero_point; its gradient is 1 where values are clipped.
  np.testing.assert_allclose(of_zero, -step * upstream[expected[1] == 0].sum(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_features_after_relu_equal_the_formula_and_include_the_relu(bits):
  rng = np.random.default_rng(0)
  values, upstream = rng.normal(size=(2, 4000)).astype(np.float32)
  step, highest = np.float32(2 / 2**bits), 2**bits - 1
  q, of_values, of_step = _gradients(
    lambda v, s: learned_relu(v, s, bits), tf.constant(values), tf.constant(step), upstream=upstream
  )
  expected = _reference(values, step, 0, highest, upstream)
  np.testing.assert_allclose(q, expected[0], atol=1e-5)
  np.testing.assert_array_equal(of_values, expected[1].astype(np.float32))
  np.testing.assert_allclose(of_step, expected[2].sum(), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("quantizer", [LearnedStepWeights(4, [-1], False, ""), LearnedStepFeatures(4, False, "")])
def test_the_gradient_of_a_logarithm_is_the_papers_scaled_gradient_over_the_step(quantizer):
  rng = np.random.default_rng(0)
  values, upstream = np.abs(rng.normal(size=(2, 50, 6))).astype(np.float32)
  layer = layers.Layer()
  variables = quantizer.build(tf.TensorShape(values.shape), "x", layer)
  low, high = getattr(quantizer, "low", 0), quantizer.high
  with tf.GradientTape() as tape:
    result = tf.reduce_sum(quantizer(tf.constant(values), True, weights=variables) * upstream)
  actual = tape.gradient(result, variables["log_step"]).numpy()
  step = np.exp(np.float64(variables["log_step"]))
  by_element = _reference(values, step, low, high, upstream)[2]
  # N is the number of weights that share the step, or of features of one example.
  if isinstance(quantizer, LearnedStepWeights):
    expected = by_element.sum(0, keepdims=True) / np.sqrt(50 * high) / step
  else:
    expected = by_element.sum() / np.sqrt(6 * high) / step
  np.testing.assert_allclose(actual, expected, rtol=1e-4)


@pytest.mark.parametrize("low, high", [(-2, 1), (-8, 7), (0, 3), (0, 255)])
def test_the_first_step_has_the_least_squared_error(low, high):
  values = np.random.default_rng(0).normal(0, [0.01, 1.0, 30.0], (500, 3))
  found = best_step(values, low, high, (0,))

  def error(step):
    return ((np.clip(np.round(values / step), low, high) * step - values) ** 2).sum(0)

  best = np.min([error(share * np.abs(values).max(0) / high) for share in np.linspace(0.01, 1.2, 2000)], axis=0)
  assert (error(found[0]) <= 1.02 * best).all()


def test_kernels_and_features_that_are_zero_have_a_step():
  for values, low in ((np.zeros((4, 2)), -2), (np.array([[-1.0, -2.0]] * 4), 0)):
    assert (best_step(values, low, 3, (0,)) > 0).all()


def _network(activation="relu"):
  inputs = keras.Input((16, 16, 3))
  x = layers.Rescaling(2.0, -1.0, name="scale")(inputs)
  x = layers.Conv2D(8, 3, strides=2, use_bias=False, name="first")(x)
  x = layers.Activation(activation, name="a0")(layers.BatchNormalization(name="bn0")(x))
  y = layers.Conv2D(8, 3, padding="same", name="middle")(x)
  y = layers.Activation(activation, name="a1")(layers.BatchNormalization(name="bn1")(y))
  x = layers.Add(name="add")([x, layers.DepthwiseConv2D(3, padding="same", name="depthwise")(y)])
  x = layers.GlobalAveragePooling2D(name="pool")(layers.Activation(activation, name="a2")(x))
  return keras.Model(inputs, layers.Dense(10, name="last")(x))


def _quantizers(student):
  """Returns the quantizers of kernels and of outputs by name of the layer."""
  wrapped = {layer.layer.name: layer for layer in student.layers if hasattr(layer, "_weight_vars")}
  kernels = {name: layer._weight_vars[0][1] for name, layer in wrapped.items() if layer._weight_vars}
  return kernels, {name: layer._output_quantizers[0] for name, layer in wrapped.items() if layer._output_quantizers}


def test_the_first_and_the_last_layer_have_eight_bits_and_features_are_rounded_where_kernels_read_them(images_once):
  student = quantization.quantize(_network(), "w2a3-lsq")
  kernels, features = _quantizers(student)
  assert {name: q.bits for name, q in kernels.items()} == {"first": 8, "middle": 2, "depthwise": 2, "last": 8}
  assert {name: (q.bits, q.is_signed) for name, q in features.items()} == {
    "scale": (8, True), "a0": (3, False), "a1": (3, False), "pool": (8, False),
  }  # fmt: skip
  steps = {layer.layer.name: layer._weight_vars[0][2]["log_step"].shape for layer in _with_kernels(student)}
  assert steps["middle"] == (1, 1, 1, 8) and steps["depthwise"] == (1, 1, 8, 1) and steps["last"] == (1, 10)
  other = quantization.quantize(_network(), LearnedStep(2, 3, outer_bits=4))
  assert {q.bits for q in _quantizers(other)[0].values()} == {2, 4}
  assert quantization.scheme_of(other) == LearnedStep(2, 3, 4) == quantization.parse_scheme("w2a3-lsq(outer_bits=4)")


def _with_kernels(student):
  return [layer for layer in student.layers if getattr(layer, "_weight_vars", ())]


@pytest.mark.parametrize("activation", ["swish", "gelu", "tanh", "linear"])
def test_signed_features_have_a_zero_point_that_is_trained(activation):
  x = np.random.default_rng(0).random((64, 16, 16, 3), np.float32)
  student = quantization.quantize(_network(activation), "w4a4-lsq", calibration_data=x)
  assert _quantizers(student)[1]["a0"].is_signed
  names = [v.name for v in student.trainable_variables]
  assert sum("zero_point" in name for name in names) == 4 and len({*names}) == len(names)
  features = student.get_layer("quant_a0")(np.random.default_rng(0).normal(0, 1, (1, 7, 7, 8)))
  assert len(np.unique(features)) <= 16 and (np.asarray(features) == 0).any() and np.min(features) < 0


@pytest.mark.parametrize("scheme", ["w4a4-lsq", "w2a2-lsq", "w2a1-lsq", "w2a8-lsq", "w8a8-lsq"])
def test_students_train_from_float_weights_and_from_scratch(scheme, images_once):
  x, y = images_once[0][:, ::2, ::2], images_once[1]
  model = _network()
  losses = []
  for epochs in (0, 30):
    if epochs:
      model.compile(keras.optimizers.Adam(1e-2), LOSS)
      model.fit(x, y, epochs=epochs, verbose=0)
    student = quantization.quantize(model, scheme, calibration_data=x)
    student.compile(keras.optimizers.Adam(5e-3), LOSS)
    steps = [v for v in student.trainable_variables if "log_step" in v.name]
    before = [v.numpy() for v in steps]
    losses.append(student.fit(x, y, epochs=12, verbose=0).history["loss"])
    assert losses[-1][-1] < losses[-1][0]
    assert all((a != b.numpy()).any() for a, b in zip(before, steps, strict=True))
    # The training step computes what the saved student does, to float32's last digits.
    outputs = [tf.stop_gradient(layer(tf.constant(v), training=True)) for layer, v in _one_rounded(student)]
    for trained, inferred in zip(outputs, [layer(v) for layer, v in _one_rounded(student)], strict=True):
      np.testing.assert_allclose(trained, inferred, atol=1e-5)
  assert losses[1][0] < losses[0][0]


def _one_rounded(student):
  rng = np.random.default_rng(0)
  layer = student.get_layer("quant_a1")
  return [(layer, rng.normal(0, 0.5, (1, *layer.input_shape[1:])).astype(np.float32))]


@pytest.mark.parametrize("scheme", ["w8a8-lsq", "w6a8-lsq", "w4a8-lsq", "w2a8-lsq"])
def test_files_with_eight_bit_features_have_integers_only_and_the_trained_levels(scheme, tmp_path):
  from ai_edge_litert.interpreter import Interpreter

  rng = np.random.default_rng(0)
  x, y = rng.random((64, 16, 16, 3), np.float32), rng.integers(0, 10, 64)
  student = quantization.quantize(_network("swish"), scheme, calibration_data=x)
  student.compile(keras.optimizers.Adam(1e-3), LOSS)
  student.fit(x, y, verbose=0)
  path = str(tmp_path / "a.tflite")
  deploy.to_tflite(student, path)
  measured = deploy.evaluate(path, tf.data.Dataset.from_tensor_slices((x, y)).batch(32), student)
  assert measured["worst_steps"] <= 4
  bits = quantization.parse_scheme(scheme).weight_bits
  middle = next(layer for layer in _with_kernels(student) if layer.layer.name == "middle")
  ((kernel, quantizer, ranges),) = middle._weight_vars
  expected, _ = quantizer.encode(kernel, ranges)
  assert np.abs(expected).max() <= 2 ** (bits - 1) - 1
  interpreter = Interpreter(path)
  tensors = {tuple(d["shape"]): d for d in interpreter.get_tensor_details()}
  found = tensors[8, 3, 3, 8]
  levels = interpreter.get_tensor(found["index"]) if bits > 4 else None
  if levels is not None:
    np.testing.assert_array_equal(np.moveaxis(levels, 0, -1), expected)
  assert found["quantization_parameters"]["scales"].shape == (8,)


def test_integers_of_several_bits_are_packed_by_kernel(tmp_path):
  x = np.random.default_rng(0).random((32, 16, 16, 3), np.float32)
  sizes = [
    deploy.to_tflite(quantization.quantize(_network(), scheme, calibration_data=x), str(tmp_path / "a.tflite"))
    for scheme in (LearnedStepIntegers(4, outer_bits=4), LearnedStepIntegers(4), LearnedStepIntegers(8))
  ]
  middle, outer = 3 * 3 * 8 * 8 + 3 * 3 * 8, 3 * 3 * 3 * 8 + 80
  assert abs(sizes[1] - sizes[0] - outer // 2) < 32 and abs(sizes[2] - sizes[1] - middle // 2) < 64


@pytest.mark.parametrize("name", ["w1a4-lsq", "w9a4-lsq", "w4a9-lsq", "w4a0-lsq", "w4a4-lsq(outer_bits=3)", "w4-lsq"])
def test_other_names_are_refused(name):
  with pytest.raises(ValueError):
    quantization.parse_scheme(name)


def test_what_has_no_learned_steps_is_refused_by_name():
  inputs = keras.Input((8,), dtype="int32")
  x = layers.GRU(4, name="gru")(layers.Embedding(10, 4, name="embedding")(inputs))
  with pytest.raises(ValueError, match="(?s)'embedding'.*float_layers.*'gru'"):
    quantization.quantize(keras.Model(inputs, layers.Dense(2)(x)), "w4a4-lsq")
  inputs = keras.Input((8, 8, 4))
  first, second = tf.split(layers.Conv2D(4, 3)(inputs), 2, axis=-1)
  model = keras.Model(inputs, layers.Concatenate()([layers.Conv2D(2, 3)(first), layers.Conv2D(2, 3)(second)]))
  with pytest.raises(ValueError, match="several outputs.*Activation"):
    quantization.quantize(model, "w4a4-lsq")
  first, second = (layers.Activation("linear")(part) for part in tf.split(layers.Conv2D(4, 3)(inputs), 2, axis=-1))
  model = keras.Model(inputs, layers.Concatenate()([layers.Conv2D(2, 3)(first), layers.Conv2D(2, 3)(second)]))
  assert len(_quantizers(quantization.quantize(model, "w4a4-lsq"))[1]) == 2


def test_frozen_steps_do_not_move(images_once):
  x, y = images_once[0][:, ::2, ::2], images_once[1]
  student = quantization.quantize(_network(), "w2a2-lsq", calibration_data=x)
  frozen = student.get_layer("quant_middle"), student.get_layer("quant_a1")
  for layer in frozen:
    layer.trainable = False
  before = [layer.get_weights() for layer in frozen]
  student.compile(keras.optimizers.Adam(1e-2), LOSS)
  student.fit(x, y, verbose=0)
  for layer, weights in zip(frozen, before, strict=True):
    for a, b in zip(layer.get_weights(), weights, strict=True):
      np.testing.assert_array_equal(a, b)
