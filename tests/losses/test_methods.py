"""Properties of single losses that their papers claim; `test_cases` tests the properties of all losses."""

import doctest
import functools

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.losses import references
from tests.losses.cases import function, gradient, inputs
from tfkd import losses
from tfkd.losses import _attention as attention
from tfkd.ops.pooling import average_pool


def _two_classes():
  teacher, student = (2 * np.random.default_rng(1).normal(size=(2, 7, 2))).astype(np.float32)
  return teacher, student, np.array([0, 1, 1, 0, 0, 1, 0])


def test_decoupled_terms_weighted_by_the_teachers_doubt_equal_plain_distillation():
  # Zhao et al. 2022, eq. 5: KL = TCKD + (1 - p_y) NCKD.
  teacher, student, labels = inputs("decoupled")
  p = np.exp(teacher) / np.exp(teacher).sum(axis=1, keepdims=True)
  doubt = 1 - p[np.arange(7), labels]
  target = losses.decoupled(teacher, student, labels, 1.0, alpha=1.0, beta=0.0)
  rest = losses.decoupled(teacher, student, labels, 1.0, alpha=0.0, beta=1.0)
  np.testing.assert_allclose(target + doubt * rest, losses.soft_target_kl(teacher, student, 1.0), rtol=1e-4)


@pytest.mark.parametrize("name", ["decoupled", "normalized"])
def test_two_classes_give_finite_losses(name):
  teacher, student, labels = _two_classes()
  assert np.isfinite(function(name)(teacher, student, labels)).all()
  assert np.isfinite(gradient(function(name), [teacher, student, labels])).all()


def test_neuron_selectivity_ignores_order_sign_and_scale_of_channels():
  feature, _ = inputs("neuron_selectivity")
  shuffled = feature[..., ::-1] * np.array([1, -1, 2, -3, 1, 1], np.float32)
  np.testing.assert_allclose(losses.neuron_selectivity(feature, shuffled), 0, atol=1e-6)


def test_channel_correlations_ignore_positions():
  feature, _ = inputs("inter_channel_correlation")
  np.testing.assert_allclose(losses.inter_channel_correlation(feature, feature[:, ::-1, ::-1]), 0, atol=1e-6)


def test_activation_boundary_is_zero_beyond_the_margin_on_the_teachers_side():
  teacher = np.array([[0.1, -0.1, 5.0, -5.0]], np.float32)
  assert losses.activation_boundary(teacher, np.array([[9.0, -9.0, 1.0, -1.0]], np.float32)).numpy() == [0.0]
  assert losses.activation_boundary(teacher, np.array([[9.0, -9.0, -1.0, 0.0]], np.float32)).numpy() == [5.0]


def test_partial_distance_ignores_students_below_an_inactive_teacher():
  teacher = np.array([[-3.0, -0.2, 2.0]], np.float32)
  assert losses.partial_distance(teacher, np.array([[-9.0, -0.5, 2.0]], np.float32), -0.5).numpy() == [0.0]
  np.testing.assert_allclose(losses.partial_distance(teacher, np.array([[0.5, 0.8, 1.0]], np.float32), -0.5), [3.0])


@pytest.mark.parametrize("size", [(4, 3), (3, 2), (2, 5), (1, 1), (7, 6)])
def test_adaptive_pooling_equals_pytorchs_definition(size):
  feature = np.random.default_rng(0).normal(size=(2, 7, 6, 3)).astype(np.float32)
  expected = [references.average_pool(example, size) for example in np.float64(feature)]
  np.testing.assert_allclose(average_pool(tf.constant(feature), size), expected, rtol=1e-5, atol=1e-6)


def test_decoupled_of_two_classes_has_no_second_term():
  teacher, student, labels = _two_classes()
  expected = losses.soft_target_kl(teacher, student, 4.0).numpy() * 16
  np.testing.assert_allclose(losses.decoupled(teacher, student, labels), expected, rtol=1e-4)
  assert np.isfinite(gradient(losses.decoupled, [teacher, student, labels])).all()


def test_dist_ignores_scale_and_offset_of_probabilities_but_not_their_order():
  teacher = np.log(np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6], [0.3, 0.5, 0.2]], np.float32))
  blurred = np.log(0.5 * np.exp(teacher) + 0.5 / 3)
  np.testing.assert_allclose(losses.dist(teacher, blurred), 0, atol=1e-5)
  assert losses.dist(teacher, teacher[:, ::-1].copy()) > 0.5


@pytest.mark.parametrize("rank", [1, 2])
def test_singular_vectors_of_fewer_positions_than_channels(rank):
  # A smaller matrix is decomposed; value and gradient must not differ.
  rng = np.random.default_rng(4)
  teacher, student = np.maximum(rng.normal(size=(2, 3, 2, 2, 3, 9)), 0).astype(np.float32) + 0.1
  direction = rng.normal(size=student.shape)
  values = [references.singular_vectors(teacher, np.float64(student) + e * direction, rank) for e in (-1e-5, 0, 1e-5)]
  loss = functools.partial(function("singular_vectors"), rank=rank)
  np.testing.assert_allclose(loss(teacher, student), values[1], rtol=1e-3)
  found = np.sum(gradient(loss, [teacher, student]) * direction)
  np.testing.assert_allclose(found, np.sum(values[2] - values[0]) / 2e-5, rtol=2e-3)


def test_singular_vectors_have_a_bounded_gradient_where_singular_values_are_equal():
  features = np.stack([np.stack([np.eye(6)[:, None, :]] * 2)] * 3).astype(np.float32)  # All are 1.
  loss = functools.partial(function("singular_vectors"), rank=2)
  assert np.isfinite(gradient(loss, [features, features])).all()
  nearly = features + 1e-6 * np.random.default_rng(0).normal(size=features.shape).astype(np.float32)
  assert np.abs(gradient(loss, [features, nearly])).max() < 1e4


def test_docstring_example_of_attention_transfer():
  results = doctest.testmod(attention, extraglobs={"tf": tf})
  assert results.failed == 0 and results.attempted == 2


@pytest.mark.parametrize(
  "name",
  [
    "similarity_preserving",
    "rkd_distance",
    "rkd_angle",
    "distance_metric",
    "correlation_congruence",
    "probabilistic_transfer",
  ],
)
@settings(max_examples=15, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1))
def test_relations_of_rotated_embeddings_are_equal(name, seed):
  rng = np.random.default_rng(seed)
  embedding = rng.normal(size=(6, 5)).astype(np.float32)
  rotation, _ = np.linalg.qr(rng.normal(size=(5, 5)))
  np.testing.assert_allclose(function(name)(embedding, (embedding @ rotation).astype(np.float32)), 0, atol=1e-6)
