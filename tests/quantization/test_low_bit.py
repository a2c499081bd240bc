"""The low-bit grids against the homework's formula in float64."""

import numpy as np
import pytest
import tensorflow as tf

from tfkd.quantization import LowBitFeatures, LowBitWeights

EACH_BITS = pytest.mark.parametrize("bits", [1, 2, 3, 7])


def _weights_reference(w, bits, scale):
  t = [np.tanh(float(v)) for v in w.ravel()]
  width = scale * sum(abs(v) for v in t) / len(t)
  steps = 2**bits - 1
  return np.array([(np.round((min(max(v / width, -0.5), 0.5) + 0.5) * steps) / steps - 0.5) * width for v in t])


@EACH_BITS
@pytest.mark.parametrize("scale", [2.0, 3.5])
def test_weights_equal_the_formula(bits, scale):
  w = np.random.default_rng(0).normal(0, 0.3, (3, 3, 40, 20)).astype(np.float32)
  actual = LowBitWeights(bits, scale)(w, training=True, weights={}).numpy()
  expected = _weights_reference(w, bits, scale).reshape(w.shape)
  # A weight within float32's last digit of a threshold may fall to either side.
  wrong = np.abs(actual - expected) > 1e-6
  assert wrong.mean() < 0.01
  assert len(np.unique(actual)) == 2**bits


@EACH_BITS
def test_features_equal_the_formula(bits):
  x = np.random.default_rng(0).normal(0.5, 1, 1000).astype(np.float32)
  steps = 2**bits - 1
  expected = np.round(np.clip(np.float64(x), 0, 1) * steps) / steps
  np.testing.assert_allclose(LowBitFeatures(bits)(x, training=False, weights={}), expected, atol=1e-6)


def test_gradient_of_weights_is_that_of_tanh_beyond_the_clip_too():
  w = tf.Variable(np.random.default_rng(0).normal(0, 1, 100).astype(np.float32))
  with tf.GradientTape() as tape:
    loss = tf.reduce_sum(3 * LowBitWeights(2, 2.0)(w, training=True, weights={}))
  np.testing.assert_allclose(tape.gradient(loss, w), 3 / np.cosh(np.float64(w)) ** 2, rtol=1e-4)


@pytest.mark.parametrize("bits", [1, 3])
def test_gradient_of_features_is_one_inside_the_clip_and_zero_outside(bits):
  x = tf.Variable([-0.5, 0.0, 0.2, 0.6, 1.0, 1.5])
  with tf.GradientTape() as tape:
    loss = tf.reduce_sum(3 * LowBitFeatures(bits)(x, training=True, weights={}))
  np.testing.assert_array_equal(tape.gradient(loss, x), [0, 3, 3, 3, 3, 0])


def test_zero_weights_stay_finite():
  assert np.isfinite(LowBitWeights(2, 2.0)(np.zeros((3, 3)), training=True, weights={})).all()
