"""Properties that hold for all logits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tfkd import losses

settings.register_profile("tests", max_examples=50, deadline=None, derandomize=True)
settings.load_profile("tests")
LOGITS = arrays(np.float32, (3, 5), elements=st.floats(-1e4, 1e4, width=32))
TEMPERATURES = st.floats(0.25, 200)


@given(LOGITS, LOGITS, TEMPERATURES)
def test_divergence_is_finite_and_not_negative(teacher, student, temperature):
  loss = losses.soft_target_kl(teacher, student, temperature).numpy()
  assert np.isfinite(loss).all() and (loss >= 0).all()


@given(LOGITS, TEMPERATURES)
def test_divergence_is_zero_for_equal_logits(logits, temperature):
  assert (losses.soft_target_kl(logits, logits, temperature).numpy() == 0).all()


@given(LOGITS, LOGITS, st.permutations(range(3)))
def test_permuting_the_batch_permutes_the_loss(teacher, student, order):
  loss = losses.soft_target_cross_entropy(teacher, student, 3.0).numpy()
  permuted = losses.soft_target_cross_entropy(teacher[order], student[order], 3.0).numpy()
  np.testing.assert_array_equal(loss[order], permuted)


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
