"""Soft targets over temperatures and scales of logits, their limits, and standardized logits."""

import doctest

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tests.losses import references
from tfkd import losses
from tfkd.losses import _soft_targets as soft_targets

NAMES = ("soft_target_cross_entropy", "soft_target_kl", "tempered_cross_entropy")
TEMPERATURES = (1.0, 5.0, 100.0)
SCALES = (1e-3, 1.0, 10.0, 1e4)
MANY = settings(max_examples=50, deadline=None, derandomize=True)
LOGITS = arrays(np.float32, (3, 5), elements=st.floats(-1e4, 1e4, width=32))
ANY_TEMPERATURE = st.floats(0.25, 200)


def _arguments(name, scale, classes=10, batch=6):
  rng = np.random.default_rng(int(np.log10(scale)) + 10)
  first, second = rng.normal(size=(2, batch, classes)).astype(np.float32)
  if name == "tempered_cross_entropy":
    first = np.exp(first) / np.exp(first).sum(axis=1, keepdims=True)
    return first, second * np.float32(scale)
  return first * np.float32(scale), second * np.float32(scale)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", NAMES)
def test_equals_the_papers_formula(name, scale, temperature):
  first, student = _arguments(name, scale)
  expected = getattr(references, name)(first, student, temperature)
  actual = getattr(losses, name)(first, student, temperature)
  assert actual.dtype == tf.float32 and actual.shape == (6,)
  # float32 logits of size s are known to s * 6e-8; the divergence of nearly equal distributions is of second order.
  np.testing.assert_allclose(actual, expected, rtol=2e-4, atol=1e-7 * max(scale / temperature, 0.01))


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", NAMES)
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
  if name != "tempered_cross_entropy":
    target = np.exp(target / temperature - (target / temperature).max(axis=1, keepdims=True))
    target /= target.sum(axis=1, keepdims=True)
  np.testing.assert_allclose(
    tape.gradient(loss, student), (q - target) / temperature, rtol=1e-3, atol=3e-7 * max(1, scale / temperature / 10)
  )


def test_divergence_keeps_its_digits_at_a_high_temperature():
  # The textbook sum of p (log p - log q) in float32 is off by a percent and more here.
  rng = np.random.default_rng(3)
  teacher, student = rng.normal(size=(2, 50, 10)).astype(np.float32)
  expected = references.soft_target_kl(teacher, student, 300.0)
  np.testing.assert_allclose(losses.soft_target_kl(teacher, student, 300.0), expected, rtol=1e-3)


@pytest.mark.parametrize("name", ["soft_target_cross_entropy", "soft_target_kl"])
def test_teacher_and_student_are_not_interchangeable(name):
  teacher, student = _arguments(name, 10.0)
  loss = getattr(losses, name)
  assert np.abs(loss(teacher, student, 2.0) - loss(student, teacher, 2.0)).max() > 0.1


def test_temperature_may_be_a_variable():
  first, student = _arguments("soft_target_kl", 1.0)
  temperature = tf.Variable(2.0)
  np.testing.assert_allclose(
    losses.soft_target_kl(first, student, temperature), losses.soft_target_kl(first, student, 2.0)
  )


def test_docstring_examples():
  assert doctest.testmod(soft_targets, extraglobs={"tf": tf}).failed == 0
  assert doctest.testmod(soft_targets).attempted == 4


@MANY
@given(LOGITS, LOGITS, ANY_TEMPERATURE)
def test_divergence_is_finite_and_not_negative(teacher, student, temperature):
  loss = losses.soft_target_kl(teacher, student, temperature).numpy()
  assert np.isfinite(loss).all() and (loss >= 0).all()


@MANY
@given(LOGITS, ANY_TEMPERATURE)
def test_divergence_is_zero_for_equal_logits(logits, temperature):
  assert (losses.soft_target_kl(logits, logits, temperature).numpy() == 0).all()


@MANY
@given(LOGITS, LOGITS, st.permutations(range(3)))
def test_permuting_the_batch_permutes_the_loss(teacher, student, order):
  loss = losses.soft_target_cross_entropy(teacher, student, 3.0).numpy()
  permuted = losses.soft_target_cross_entropy(teacher[order], student[order], 3.0).numpy()
  np.testing.assert_array_equal(loss[order], permuted)


@MANY
@given(arrays(np.float32, (3, 5), elements=st.floats(-8, 8, width=32)), st.integers(-64, 64))
def test_a_constant_added_to_all_logits_changes_nothing(logits, constant):
  teacher = np.linspace(-2, 2, 15, dtype=np.float32).reshape(3, 5)
  loss = losses.soft_target_kl(teacher, logits, 2.0)
  shifted = losses.soft_target_kl(teacher + np.float32(constant), logits + np.float32(constant), 2.0)
  np.testing.assert_allclose(loss, shifted, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("temperature", [1e3, 1e4])
def test_at_high_temperature_the_scaled_divergence_is_half_the_variance_of_the_difference(temperature):
  # Hinton, Vinyals, Dean 2015, eq. 4: for zero-mean logits, T^2 KL -> mean_c (t - s)^2 / 2.
  rng = np.random.default_rng(0)
  teacher, student = rng.normal(size=(2, 8, 10)).astype(np.float32)
  difference = np.float64(teacher) - np.float64(student)
  expected = difference.var(axis=1) / 2
  scaled = temperature**2 * losses.soft_target_kl(teacher, student, temperature).numpy()
  np.testing.assert_allclose(scaled, expected, rtol=5e-3)


@MANY
@given(LOGITS, st.floats(0.1, 10), st.integers(-8, 8))
def test_standardized_logits_ignore_scale_and_offset(logits, scale, offset):
  # Below this spread float32 rounding, or the epsilon of the loss, matters.
  spread = logits.std(axis=1) > np.maximum(1e-2 * np.abs(logits).max(axis=1), 1e-3)
  moved = losses.standardize_logits(np.float32(scale) * logits + np.float32(offset)).numpy()
  np.testing.assert_allclose(moved[spread], losses.standardize_logits(logits).numpy()[spread], atol=2e-2)


class TestStandardizedLogits:
  def test_equal_the_papers_formula(self):
    logits, _ = _arguments("soft_target_kl", 10.0)
    actual = losses.standardize_logits(logits)
    assert actual.dtype == tf.float32
    np.testing.assert_allclose(actual, references.standardize_logits(logits), rtol=1e-5, atol=1e-6)

  @pytest.mark.parametrize("scale", [1e-2, 1.0, 1e6])
  def test_have_mean_zero_and_std_one_at_any_scale(self, scale):
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
