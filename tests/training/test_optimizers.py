"""Optimizers and schedules against arithmetic done by hand."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from tfkd.training import make_optimizer, scaled_learning_rate


def _rates(steps, **fields):
  schedule = make_optimizer("adam", 0.01, steps, **fields).get_config()["learning_rate"]
  restored = keras.optimizers.schedules.deserialize(schedule)
  return np.array([float(restored(step)) for step in range(steps + 1)])


def test_cosine_schedule_warms_up_and_decays_to_zero():
  rates = _rates(100)
  assert rates[0] == 0 and rates[-1] == pytest.approx(0, abs=1e-9) and np.argmax(rates) == 5
  falling = 0.005 * (1 + np.cos(np.pi * np.arange(96) / 95))
  np.testing.assert_allclose(rates[5:], falling, rtol=1e-4, atol=1e-8)
  assert _rates(100, warm_up=0.0)[0] == pytest.approx(0.01)


def test_steps_schedule_decays_to_a_tenth_three_times():
  rates = _rates(240, schedule="step", warm_up=0.0)
  for first, last, rate in ((0, 150, 1e-2), (151, 180, 1e-3), (181, 210, 1e-4), (211, 240, 1e-5)):
    np.testing.assert_allclose(rates[first : last + 1], rate, rtol=1e-5)
  np.testing.assert_allclose(_rates(240, schedule="step", warm_up=0.1)[:25], 0.01 * np.arange(25) / 24, rtol=1e-5)


def _steps(made, gradients):
  kernel, bias = tf.Variable([2.0, -4.0], name="conv/kernel"), tf.Variable([1.0], name="conv/bias")
  for gradient in gradients:
    made.apply_gradients([(tf.constant(gradient), kernel), (tf.constant([0.0]), bias)])
  return kernel.numpy(), bias.numpy()


def test_sgd_has_momentum_and_decays_only_kernels():
  made = make_optimizer("sgd", 0.1, 1000, weight_decay=0.5, schedule="step", warm_up=0.0)
  gradients = [[1.0, 0.0], [0.5, 1.0], [0.0, -1.0]]
  kernel, bias = _steps(made, gradients)
  weight, velocity = np.array([2.0, -4.0]), np.zeros(2)
  for gradient in gradients:
    weight = weight - 0.1 * 0.5 * weight
    velocity = 0.9 * velocity - 0.1 * np.array(gradient)
    weight = weight + velocity
  np.testing.assert_allclose(kernel, weight, rtol=1e-6)
  np.testing.assert_array_equal(bias, [1.0])


def test_adam_decays_weights_without_gradient():
  made = make_optimizer("adam", 0.1, 10**6, weight_decay=0.5, warm_up=0.0)
  kernel, bias = _steps(made, [[0.0, 0.0]] * 2)
  np.testing.assert_allclose(kernel, np.array([2.0, -4.0]) * 0.95**2, rtol=1e-5)
  np.testing.assert_array_equal(bias, [1.0])


@pytest.mark.parametrize(
  "fields, words",
  [
    ({"name": "lion"}, "unknown optimizer 'lion': expected one of adam, sgd"),
    ({"schedule": "flat"}, "unknown schedule 'flat': expected one of cosine, step"),
    ({"warm_up": 1.0}, r"warm_up and ema must be in \[0, 1\)"),
    ({"weight_decay": -1.0}, "weight_decay >= 0; got"),
    ({"ema": 0.999}, r"after 100 steps a moving average with ema=0.999 still holds 90 %.*at most 0.9550"),
  ],
)
def test_invalid_optimizer_options_raise(fields, words):
  with pytest.raises(ValueError, match=words):
    make_optimizer(**{"name": "adam", "learning_rate": 0.1, "steps": 100} | fields)


def test_learning_rates_are_scaled_linearly_with_the_batch():
  assert scaled_learning_rate(0.01, 512) == pytest.approx(0.04) and scaled_learning_rate(0.01, 128) == 0.01
