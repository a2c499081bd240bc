"""Properties that hold for all logits, and the invariances that the methods of features and relations claim."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tests.losses.references import FEATURE_CASES, filled_in
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


RELATIVE = (
  "attention_transfer",
  "neuron_selectivity",
  "similarity_preserving",
  "factor_transfer",
  "inter_channel_correlation",
  "rkd_distance",
  "rkd_angle",
  "correlation_congruence",
  "probabilistic_transfer",
  "contrastive",
)
RELATIONS = (
  "similarity_preserving",
  "rkd_distance",
  "rkd_angle",
  "distance_metric",
  "correlation_congruence",
  "probabilistic_transfer",
)
SEEDS = st.integers(0, 2**32 - 1)
SCALES = st.floats(1e-3, 1e3)
# Fewer than the profile's: each method has its own.
FEW = settings(max_examples=15)


def _features(name, seed):
  rng = np.random.default_rng(seed)
  return [rng.normal(size=shape).astype(np.float32) for shape in FEATURE_CASES[name][1]]


@pytest.mark.parametrize("name", RELATIVE)
@FEW
@given(seed=SEEDS, of_teacher=SCALES, of_student=SCALES)
def test_scale_of_either_network_does_not_matter(name, seed, of_teacher, of_student):
  teacher, student = _features(name, seed)
  loss = filled_in(name)
  scaled = loss(np.float32(of_teacher) * teacher, np.float32(of_student) * student)
  np.testing.assert_allclose(scaled, loss(teacher, student), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", RELATIONS)
@FEW
@given(seed=SEEDS)
def test_rotated_embeddings_have_the_same_relations(name, seed):
  rng = np.random.default_rng(seed)
  embedding = rng.normal(size=(6, 5)).astype(np.float32)
  rotation, _ = np.linalg.qr(rng.normal(size=(5, 5)))
  np.testing.assert_allclose(filled_in(name)(embedding, (embedding @ rotation).astype(np.float32)), 0, atol=1e-6)


@pytest.mark.parametrize("fill", ["zero", "twin"])
@pytest.mark.parametrize("name", FEATURE_CASES)
def test_an_example_that_is_zero_or_there_twice_gets_no_huge_gradient(name, fill):
  teacher, student = _features(name, 0)
  student[0] = student[1] if fill == "twin" else 0
  student = tf.Variable(student)
  with tf.GradientTape() as tape:
    loss = filled_in(name)(teacher, student)
  assert np.abs(tape.gradient(loss, student)).max() < 100


@pytest.mark.parametrize("name", FEATURE_CASES)
@FEW
@given(seed=SEEDS)
def test_order_of_the_batch_matters_to_no_relation_and_permutes_the_others(name, seed):
  if name == "contrastive":
    return  # Its negatives are the batch in reverse order here.
  teacher, student = _features(name, seed)
  order = np.random.default_rng(seed).permutation(len(teacher))
  loss, permuted = filled_in(name)(teacher, student), filled_in(name)(teacher[order], student[order])
  np.testing.assert_allclose(permuted, tf.gather(loss, order) if FEATURE_CASES[name][3] else loss, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["rkd_distance", "rkd_angle", "distance_metric"])
@FEW
@given(seed=SEEDS, of_teacher=st.integers(-50, 50), of_student=st.integers(-50, 50))
def test_shifted_embeddings_have_the_same_distances(name, seed, of_teacher, of_student):
  teacher, student = _features(name, seed)
  loss = filled_in(name)
  shifted = loss(teacher + np.float32(of_teacher), student + np.float32(of_student))
  np.testing.assert_allclose(shifted, loss(teacher, student), rtol=5e-3, atol=1e-6)


@pytest.mark.parametrize("name", ["attention_transfer", "neuron_selectivity", "similarity_preserving"])
@FEW
@given(seed=SEEDS)
def test_order_of_the_channels_does_not_matter_where_they_may_differ_in_number(name, seed):
  teacher, student = _features(name, seed)
  order = np.random.default_rng(seed).permutation(student.shape[-1])
  loss = filled_in(name)
  np.testing.assert_allclose(loss(teacher, student[..., order]), loss(teacher, student), rtol=1e-3, atol=1e-6)


@given(LOGITS, st.floats(0.1, 10), st.integers(-8, 8))
def test_standardized_logits_forget_scale_and_offset(logits, scale, offset):
  # Below it float32 has lost the shape, or the loss's epsilon counts.
  spread = logits.std(axis=1) > np.maximum(1e-2 * np.abs(logits).max(axis=1), 1e-3)
  moved = losses.standardize_logits(np.float32(scale) * logits + np.float32(offset)).numpy()
  np.testing.assert_allclose(moved[spread], losses.standardize_logits(logits).numpy()[spread], atol=2e-2)
