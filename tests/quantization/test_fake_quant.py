"""The faster fake quantization has TensorFlow's values and gradients to the bit."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from tfkd import quantization
from tfkd.quantization import fake_quant

layers = keras.layers


def _values_and_gradient(function, values, upstream, *others):
  with tf.GradientTape() as tape:
    tape.watch(values)
    result = function(values, *others)
  return result, tape.gradient(result, values, upstream)


def _assert_equal(actual, expected):
  for a, b in zip(actual, expected, strict=True):
    np.testing.assert_array_equal(a.numpy(), b.numpy())


EACH_MODE = pytest.mark.parametrize("wrap", [lambda f: f, tf.function], ids=["eager", "graph"])


@EACH_MODE
@pytest.mark.parametrize("bits", [2, 4, 7, 8])
def test_kernels_equal_tensorflows_operation(wrap, bits):
  rng = np.random.default_rng(bits)
  kernel = rng.normal(size=(3, 3, 40, 64)) * rng.lognormal(size=64, sigma=3)
  kernel[..., 3] = 0
  kernel, upstream = tf.constant(kernel, tf.float32), tf.constant(rng.normal(size=kernel.shape), tf.float32)
  most = tf.reduce_max(tf.abs(kernel), [0, 1, 2])
  fast = wrap(lambda k, u, m: _values_and_gradient(lambda k, m: fake_quant.per_channel(k, m, bits), k, u, m))

  def operation(k, m):
    return tf.quantization.fake_quant_with_min_max_vars_per_channel(k, -m, m, bits, narrow_range=True)

  _assert_equal(fast(kernel, upstream, most), _values_and_gradient(operation, kernel, upstream, most))


@EACH_MODE
@pytest.mark.parametrize("narrow_range", [False, True])
@pytest.mark.parametrize("is_signed", [False, True])
def test_features_equal_tensorflows_operation(wrap, narrow_range, is_signed):
  rng = np.random.default_rng(0)

  def fast(v, low, high):
    return fake_quant.in_range(v, low, high, 8, narrow_range)

  def operation(v, low, high):
    return tf.quantization.fake_quant_with_min_max_vars(v, low, high, 8, narrow_range)

  run = wrap(lambda v, u, low, high: _values_and_gradient(fast, v, u, low, high))
  for _ in range(30):
    low, high = np.float32([-is_signed * rng.lognormal(sigma=3), rng.lognormal(sigma=3)])
    values = np.float32([*rng.normal(size=500) * max(-low, high), 0.0, low, high])
    values = tf.constant(np.concatenate([values, np.nextafter(values, np.float32(9)), np.nextafter(values, -values)]))
    upstream = tf.constant(rng.normal(size=values.shape), tf.float32)
    others = tf.constant(low), tf.constant(high)
    _assert_equal(run(values, upstream, *others), _values_and_gradient(operation, values, upstream, *others))


def test_rounding_and_relu_in_one_operation_equal_both():
  rng = np.random.default_rng(0)
  values = tf.constant(np.float32([*rng.normal(size=5000), 0.0, -0.0, 1.3]))
  upstream, high = tf.constant(rng.normal(size=values.shape), tf.float32), tf.constant(1.3)
  actual = _values_and_gradient(lambda v: fake_quant.in_range(v, 0.0, high, 8, False, True), values, upstream)

  def both(v):
    return tf.quantization.fake_quant_with_min_max_vars(tf.nn.relu(v), 0.0, high)

  _assert_equal(actual, _values_and_gradient(both, values, upstream))


@pytest.mark.parametrize("scheme", ["w8a8", "w4a8", "w4a4-lsq", "w2a1-lsq", "w4a8-lsq"])
def test_steps_compiled_by_xla_compute_the_same(scheme):
  rng = np.random.default_rng(0)
  x, y = rng.random((8, 4, 4, 3), np.float32), np.arange(8)
  model = keras.Sequential([keras.Input((4, 4, 3)), layers.Conv2D(4, 3), layers.ReLU(), layers.Conv2D(4, 1)])
  for layer in (layers.Activation("swish"), layers.Flatten(), layers.Dense(10)):
    model.add(layer)
  losses = []
  for jit_compile in (False, True):
    student = quantization.quantize(model, scheme, calibration_data=x)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    student.compile(keras.optimizers.SGD(0.1), loss, jit_compile=jit_compile)
    losses.append(student.fit(x, y, batch_size=8, epochs=3, verbose=0).history["loss"])
  np.testing.assert_allclose(losses[0], losses[1], atol=2e-3)  # Values at the limit of two levels may differ.
