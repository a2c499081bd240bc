"""Every public loss equals its paper's formula in float64, and so does its gradient."""

import doctest

import numpy as np
import pytest
import tensorflow as tf

from tests.losses import references
from tests.losses.references import CASES, FEATURE_CASES, LOGIT_CASES
from tfkd import losses
from tfkd.losses import _soft_targets as soft_targets

TEMPERATURES = (1.0, 5.0, 100.0)
SCALES = (1e-3, 1.0, 10.0, 1e4)


def _arguments(name, scale, classes=10, batch=6):
  rng = np.random.default_rng(int(np.log10(scale)) + 10)
  first, second = rng.normal(size=(2, batch, classes)).astype(np.float32)
  if CASES[name][1]:
    first = np.exp(first) / np.exp(first).sum(axis=1, keepdims=True)
    return first, second * np.float32(scale)
  return first * np.float32(scale), second * np.float32(scale)


def test_every_public_loss_has_a_reference():
  public = {name for name in dir(losses) if not name.startswith("_") and callable(getattr(losses, name))}
  assert public == set(CASES) | set(FEATURE_CASES) | set(LOGIT_CASES) | {"standardize_logits"}


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", CASES)
def test_equals_the_papers_formula(name, scale, temperature):
  first, student = _arguments(name, scale)
  expected = CASES[name][0](first, student, temperature)
  actual = getattr(losses, name)(first, student, temperature)
  assert actual.dtype == tf.float32 and actual.shape == (6,)
  # float32 logits of size s are known to s * 6e-8; the divergence of nearly equal distributions is of second order.
  np.testing.assert_allclose(actual, expected, rtol=2e-4, atol=1e-7 * max(scale / temperature, 0.01))


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", CASES)
def test_gradient_equals_the_closed_form(name, scale, temperature):
  first, student = _arguments(name, scale)
  student = tf.Variable(student)
  with tf.GradientTape() as tape:
    loss = tf.reduce_sum(getattr(losses, name)(first, student, temperature))
  # All three: (softmax(student / T) - target) / T, in float64.
  z = np.float64(student) / temperature
  q = np.exp(z - z.max(axis=1, keepdims=True))
  q /= q.sum(axis=1, keepdims=True)
  target = np.float64(first)
  if not CASES[name][1]:
    target = np.exp(target / temperature - (target / temperature).max(axis=1, keepdims=True))
    target /= target.sum(axis=1, keepdims=True)
  np.testing.assert_allclose(
    tape.gradient(loss, student), (q - target) / temperature, rtol=1e-3, atol=3e-7 * max(1, scale / temperature / 10)
  )


def test_divergence_keeps_its_digits_at_a_high_temperature():
  # The textbook sum of p (log p - log q) in float32 is off by a percent and more here.
  rng = np.random.default_rng(3)
  teacher, student = rng.normal(size=(2, 50, 10)).astype(np.float32)
  expected = CASES["soft_target_kl"][0](teacher, student, 300.0)
  np.testing.assert_allclose(losses.soft_target_kl(teacher, student, 300.0), expected, rtol=1e-3)


@pytest.mark.parametrize("name", ["soft_target_cross_entropy", "soft_target_kl"])
def test_teacher_gets_the_other_gradient(name):
  # Guards against swapped arguments: the losses are not symmetric.
  teacher, student = _arguments(name, 10.0)
  loss = getattr(losses, name)
  assert np.abs(loss(teacher, student, 2.0) - loss(student, teacher, 2.0)).max() > 0.1


@pytest.mark.parametrize("name", CASES)
def test_half_precision_is_computed_in_float32(name):
  first, student = _arguments(name, 1.0)
  half = getattr(losses, name)(tf.cast(first, tf.float16), tf.cast(student, tf.float16), 2.0)
  expected = CASES[name][0](np.float16(first), np.float16(student), 2.0)
  assert half.dtype == tf.float32
  np.testing.assert_allclose(half, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("temperature", [0, -1.0, float("nan"), float("inf")])
def test_a_meaningless_temperature_is_refused_with_the_value_given(name, temperature):
  with pytest.raises(ValueError, match=f"positive finite number; got {temperature}"):
    getattr(losses, name)(*_arguments(name, 1.0), temperature)


@pytest.mark.parametrize("name", CASES)
def test_different_class_counts_are_refused_with_both_shapes(name):
  first, student = _arguments(name, 1.0)
  with pytest.raises(ValueError, match=r"\(6, 10\) and \(6, 9\)"):
    getattr(losses, name)(first, student[:, :9], 2.0)


def test_temperature_may_be_a_variable():
  first, student = _arguments("soft_target_kl", 1.0)
  temperature = tf.Variable(2.0)
  np.testing.assert_allclose(
    losses.soft_target_kl(first, student, temperature), losses.soft_target_kl(first, student, 2.0)
  )


def test_docstring_examples_are_true():
  assert doctest.testmod(soft_targets, extraglobs={"tf": tf}).failed == 0
  assert doctest.testmod(soft_targets).attempted == 4


class TestStandardizedLogits:
  def test_equal_the_papers_formula(self):
    logits, _ = _arguments("soft_target_kl", 10.0)
    actual = losses.standardize_logits(logits)
    assert actual.dtype == tf.float32
    np.testing.assert_allclose(actual, references.standardize_logits(logits), rtol=1e-5, atol=1e-6)

  @pytest.mark.parametrize("scale", [1e-2, 1.0, 1e6])
  def test_have_mean_zero_and_deviation_one_whatever_the_scale(self, scale):
    logits, _ = _arguments("soft_target_kl", 1.0)
    actual = losses.standardize_logits(np.float32(scale) * logits + np.float32(scale)).numpy()
    np.testing.assert_allclose(actual.mean(axis=1), 0, atol=1e-5)
    np.testing.assert_allclose(actual.std(axis=1, ddof=1), 1, rtol=1e-4)

  @pytest.mark.parametrize("classes", [2, 10])
  def test_equal_logits_give_zero_and_a_finite_gradient(self, classes):
    logits = tf.Variable(tf.ones([3, classes]))
    with tf.GradientTape() as tape:
      actual = losses.standardize_logits(logits)
    np.testing.assert_array_equal(actual, 0)
    assert np.isfinite(tape.gradient(actual, logits)).all()

  def test_one_class_is_refused(self):
    with pytest.raises(ValueError, match="at least two classes"):
      losses.standardize_logits(np.ones((3, 1), np.float32))
