"""Feature, relation and further response losses against float64 numpy, and what their papers claim of them."""

import doctest
import functools

import numpy as np
import pytest
import tensorflow as tf

from tests.losses import references
from tests.losses.references import FEATURE_CASES, LOGIT_CASES, filled_in
from tfkd import losses
from tfkd.losses import _attention as attention
from tfkd.ops.pooling import average_pool

EACH_FEATURE = pytest.mark.parametrize("name", FEATURE_CASES)
EACH_LOGIT = pytest.mark.parametrize("name", LOGIT_CASES)
# What equal features give, where it is not zero.
MINIMA = {
  "variational_information": lambda x: np.full(len(x), 0.5 * np.log(5.0)),
  "log_power_distance": lambda x: np.log(1e-30),
  "activation_boundary": lambda x: np.maximum(1 - np.abs(x), 0).reshape(len(x), -1).__pow__(2).sum(1),
  "partial_distance": lambda x: np.zeros(len(x)),
  "contrastive": lambda x: references.contrastive(x, x),
}


def _features(name, seed=0):
  rng = np.random.default_rng(seed)
  return [rng.normal(size=shape).astype(np.float32) for shape in FEATURE_CASES[name][1]]


def _logits(name, classes=5):
  rng = np.random.default_rng(1)
  teacher, student = (2 * rng.normal(size=(2, 7, classes))).astype(np.float32)
  labels = rng.integers(0, classes, 7)
  return [teacher, student, labels][: 3 if LOGIT_CASES[name][2] else 2]


def _gradient(loss, arguments):
  student = tf.Variable(arguments[1])
  with tf.GradientTape() as tape:
    value = tf.reduce_sum(loss(arguments[0], student, *arguments[2:]))
  return tape.gradient(value, student).numpy()


@EACH_FEATURE
def test_feature_loss_equals_the_papers_formula(name):
  reference, _, options, per_example = FEATURE_CASES[name]
  for arguments in (options, {}):
    loss = filled_in(name)(*_features(name), **arguments)
    assert loss.dtype == tf.float32 and loss.shape == ((len(_features(name)[0]),) if per_example else ())
    np.testing.assert_allclose(loss, reference(*_features(name), **arguments), rtol=1e-4)


@EACH_LOGIT
def test_logit_loss_equals_the_papers_formula(name):
  reference, options, _, per_example = LOGIT_CASES[name]
  for arguments in (options, {}):
    loss = filled_in(name)(*_logits(name), **arguments)
    assert loss.dtype == tf.float32 and loss.shape == ((7,) if per_example else ())
    np.testing.assert_allclose(loss, reference(*_logits(name), **arguments), rtol=2e-4)


@pytest.mark.parametrize("name", [*FEATURE_CASES, *LOGIT_CASES])
def test_gradient_matches_central_differences_of_the_reference(name):
  cases, arguments = (FEATURE_CASES, _features(name)) if name in FEATURE_CASES else (LOGIT_CASES, _logits(name))
  gradient = _gradient(filled_in(name), arguments)
  rng = np.random.default_rng(2)
  direction = rng.normal(size=gradient.shape)
  step = 1e-5
  values = [
    np.sum(cases[name][0](np.float64(arguments[0]), np.float64(arguments[1]) + sign * step * direction, *arguments[2:]))
    for sign in (1, -1)
  ]
  np.testing.assert_allclose(np.sum(gradient * direction), (values[0] - values[1]) / (2 * step), rtol=1e-3)


@EACH_FEATURE
def test_equal_features_give_the_known_minimum_and_a_finite_gradient(name):
  teacher, _ = _features(name)
  minimum = MINIMA[name](teacher) if name in MINIMA else 0
  np.testing.assert_allclose(filled_in(name)(teacher, teacher), minimum, rtol=1e-5, atol=1e-6)
  assert np.isfinite(_gradient(filled_in(name), [teacher, teacher])).all()


@EACH_FEATURE
@pytest.mark.parametrize("scale", [0.0, 1e-6, 1e6])
def test_extreme_features_stay_finite(name, scale):
  teacher, student = (np.float32(scale) * x for x in _features(name))
  assert np.isfinite(filled_in(name)(teacher, student)).all()
  assert np.isfinite(_gradient(filled_in(name), [teacher, student])).all()


@EACH_FEATURE
def test_half_precision_features_are_computed_in_float32(name):
  teacher, student = (tf.cast(100 * x, tf.float16) for x in _features(name))
  expected = FEATURE_CASES[name][0](teacher.numpy(), student.numpy())
  np.testing.assert_allclose(filled_in(name)(teacher, student), expected, rtol=1e-3)


@EACH_FEATURE
def test_a_batch_of_one_is_finite(name):
  teacher, student = (x[:1] for x in _features(name))
  assert np.isfinite(filled_in(name)(teacher, student)).all()
  assert np.isfinite(_gradient(filled_in(name), [teacher, student])).all()


def test_decoupled_terms_are_plain_distillation_when_weighted_by_the_teachers_doubt():
  # Zhao et al. 2022, eq. 5: KL = TCKD + (1 - p_y) NCKD.
  teacher, student, labels = _logits("decoupled")
  p = np.exp(teacher) / np.exp(teacher).sum(axis=1, keepdims=True)
  doubt = 1 - p[np.arange(7), labels]
  target = losses.decoupled(teacher, student, labels, 1.0, alpha=1.0, beta=0.0)
  rest = losses.decoupled(teacher, student, labels, 1.0, alpha=0.0, beta=1.0)
  np.testing.assert_allclose(target + doubt * rest, losses.soft_target_kl(teacher, student, 1.0), rtol=1e-4)


@pytest.mark.parametrize("name", ["decoupled", "normalized"])
def test_two_classes_and_no_class_beside_the_target_stay_finite(name):
  teacher, student, _ = _logits(name, classes=2)
  labels = np.array([0, 1, 1, 0, 0, 1, 0])
  assert np.isfinite(filled_in(name)(teacher, student, labels)).all()
  assert np.isfinite(_gradient(filled_in(name), [teacher, student, labels])).all()


def test_neuron_selectivity_sees_channels_as_a_set_without_sign():
  feature, _ = _features("neuron_selectivity")
  shuffled = feature[..., ::-1] * np.array([1, -1, 2, -3, 1, 1], np.float32)
  np.testing.assert_allclose(losses.neuron_selectivity(feature, shuffled), 0, atol=1e-6)


def test_channel_correlations_forget_positions():
  feature, _ = _features("inter_channel_correlation")
  np.testing.assert_allclose(losses.inter_channel_correlation(feature, feature[:, ::-1, ::-1]), 0, atol=1e-6)


def test_activation_boundary_asks_for_the_side_and_a_margin_only():
  teacher = np.array([[0.1, -0.1, 5.0, -5.0]], np.float32)
  assert losses.activation_boundary(teacher, np.array([[9.0, -9.0, 1.0, -1.0]], np.float32)).numpy() == [0.0]
  assert losses.activation_boundary(teacher, np.array([[9.0, -9.0, -1.0, 0.0]], np.float32)).numpy() == [5.0]


def test_partial_distance_is_blind_where_the_teacher_is_silent_and_the_student_below():
  teacher = np.array([[-3.0, -0.2, 2.0]], np.float32)
  assert losses.partial_distance(teacher, np.array([[-9.0, -0.5, 2.0]], np.float32), -0.5).numpy() == [0.0]
  np.testing.assert_allclose(losses.partial_distance(teacher, np.array([[0.5, 0.8, 1.0]], np.float32), -0.5), [3.0])


@pytest.mark.parametrize("size", [(4, 3), (3, 2), (2, 5), (1, 1), (7, 6)])
def test_adaptive_pooling_equals_pytorchs_definition(size):
  feature = np.random.default_rng(0).normal(size=(2, 7, 6, 3)).astype(np.float32)
  expected = [references.average_pool(example, size) for example in np.float64(feature)]
  np.testing.assert_allclose(average_pool(tf.constant(feature), size), expected, rtol=1e-5, atol=1e-6)


def test_decoupled_has_only_its_target_term_with_two_classes():
  teacher, student, _ = _logits("decoupled", classes=2)
  labels = np.array([0, 1, 1, 0, 0, 1, 0])
  expected = losses.soft_target_kl(teacher, student, 4.0).numpy() * 16
  np.testing.assert_allclose(losses.decoupled(teacher, student, labels), expected, rtol=1e-4)
  assert np.isfinite(_gradient(losses.decoupled, [teacher, student, labels])).all()


@EACH_LOGIT
@pytest.mark.parametrize("scale", [0.0, 1e-6, 1e4, 1e6])
def test_extreme_logits_stay_finite(name, scale):
  teacher, student, *labels = _logits(name)
  arguments = [np.float32(scale) * teacher, np.float32(scale) * student, *labels]
  assert np.isfinite(filled_in(name)(*arguments)).all()
  assert np.isfinite(_gradient(filled_in(name), arguments)).all()


def test_correlation_forgives_scale_and_offset_of_probabilities_but_not_order():
  teacher = np.log(np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6], [0.3, 0.5, 0.2]], np.float32))
  blurred = np.log(0.5 * np.exp(teacher) + 0.5 / 3)
  np.testing.assert_allclose(losses.dist(teacher, blurred), 0, atol=1e-5)
  assert losses.dist(teacher, teacher[:, ::-1].copy()) > 0.5


@pytest.mark.parametrize("name", ["decoupled", "normalized"])
@pytest.mark.parametrize("label", [-1, 5])
def test_labels_out_of_range_are_refused(name, label):
  teacher, student, labels = _logits(name)
  labels[3] = label
  with pytest.raises(tf.errors.InvalidArgumentError, match="labels must be in 0.."):
    filled_in(name)(teacher, student, labels)


@pytest.mark.parametrize(
  "name, shapes, words",
  [
    ("hint", ((2, 4, 4, 3), (2, 4, 4, 5)), "same shape"),
    ("attention_transfer", ((2, 4, 4, 3), (2, 2, 2, 3)), "agree in batch, height and width"),
    ("attention_transfer", ((2, 4), (2, 4)), "teacher feature must have 4 axes"),
    ("similarity_preserving", ((2, 4), (3, 4)), "same batch"),
    ("rkd_distance", ((2, 4), (2, 4, 4, 1)), "student embedding must have 2 axes"),
    ("rkd_angle", ((2, 4), (3, 4)), "same batch"),
    ("probabilistic_transfer", ((2, 4, 1), (2, 4)), "teacher embedding must have 2 axes"),
    ("dist", ((2, 4), (2, 5)), "same shape"),
    ("multi_level", ((2, 4), (2, 5)), "same shape"),
    ("neuron_selectivity", ((2, 4, 4, 3), (2, 2, 2, 3)), "agree in batch, height and width"),
    ("flow_of_solution_procedure", ((2, 2, 4, 4, 3), (2, 2, 4, 4, 5)), "Gram matrix"),
    ("flow_of_solution_procedure", ((2, 3, 4, 4, 3), (2, 3, 4, 4, 3)), "must be a pair"),
    ("singular_vectors", ((2, 2, 4, 4, 3), (2, 2, 4, 4, 5)), "same channels; .* use a connector"),
    ("singular_vectors", ((2, 3, 4, 4, 3), (2, 3, 4, 4, 3)), "must be a pair"),
    ("activation_boundary", ((2, 4), (2, 5)), "same shape"),
    ("factor_transfer", ((2, 4), (2, 5)), "same shape"),
    ("variational_information", ((2, 4), (2, 5)), "same shape"),
    ("correlation_congruence", ((2, 4), (3, 4)), "same batch"),
    ("contrastive", ((2, 4), (2, 5)), "same shape"),
    ("hierarchical_context", ((2, 4), (2, 4)), "4 axes"),
    ("partial_distance", ((2, 4), (2, 5)), "same shape"),
    ("log_power_distance", ((2, 4), (2, 5)), "same shape"),
    ("inter_channel_correlation", ((2, 4, 4, 3), (2, 4, 4, 5)), "channel correlations"),
  ],
)
def test_shapes_that_do_not_fit_are_refused(name, shapes, words):
  with pytest.raises(ValueError, match=words):
    filled_in(name)(*(np.ones(shape, np.float32) for shape in shapes))


@pytest.mark.parametrize(
  "name, options, words",
  [
    ("attention_transfer", {"form": "torch"}, "'torch'"),
    ("activation_boundary", {"margin": 0}, "margin must be positive; got 0"),
    ("singular_vectors", {"rank": 7}, "rank must be between 1 and 6, .* got 7"),
    ("correlation_congruence", {"gamma": -1}, "gamma must be positive; got -1"),
    ("correlation_congruence", {"order": 0}, "order must be at least 1; got 0"),
    ("contrastive", {"temperature": 0}, "must be positive; got 0"),
    ("log_power_distance", {"power": 0.5}, "power must be at least 1; got 0.5"),
  ],
)
def test_meaningless_arguments_are_refused_with_the_value_given(name, options, words):
  with pytest.raises(ValueError, match=words):
    filled_in(name)(*_features(name), **options)


@pytest.mark.parametrize("rank", [1, 2])
def test_singular_vectors_of_fewer_positions_than_channels(rank):
  # Another matrix is decomposed then: the value and its gradient are the same formula's.
  rng = np.random.default_rng(4)
  teacher, student = np.maximum(rng.normal(size=(2, 3, 2, 2, 3, 9)), 0).astype(np.float32) + 0.1
  direction = rng.normal(size=student.shape)
  values = [references.singular_vectors(teacher, np.float64(student) + e * direction, rank) for e in (-1e-5, 0, 1e-5)]
  loss = functools.partial(filled_in("singular_vectors"), rank=rank)
  np.testing.assert_allclose(loss(teacher, student), values[1], rtol=1e-3)
  gradient = np.sum(_gradient(loss, [teacher, student]) * direction)
  np.testing.assert_allclose(gradient, np.sum(values[2] - values[0]) / 2e-5, rtol=2e-3)


def test_singular_vectors_have_a_bounded_gradient_where_singular_values_are_equal():
  features = np.stack([np.stack([np.eye(6)[:, None, :]] * 2)] * 3).astype(np.float32)  # All are 1.
  loss = functools.partial(filled_in("singular_vectors"), rank=2)
  assert np.isfinite(_gradient(loss, [features, features])).all()
  nearly = features + 1e-6 * np.random.default_rng(0).normal(size=features.shape).astype(np.float32)
  assert np.abs(_gradient(loss, [features, nearly])).max() < 1e4


def test_docstring_example_is_true():
  results = doctest.testmod(attention, extraglobs={"tf": tf})
  assert results.failed == 0 and results.attempted == 2
