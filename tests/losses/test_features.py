"""Feature, relation and further response losses against float64 numpy, and what their papers claim of them."""

import doctest

import numpy as np
import pytest
import tensorflow as tf

from tests.losses.references import FEATURE_CASES, LOGIT_CASES
from tfkd import losses
from tfkd.losses import attention

EACH_FEATURE = pytest.mark.parametrize("name", FEATURE_CASES)
EACH_LOGIT = pytest.mark.parametrize("name", LOGIT_CASES)
RELATIVE = [
  n for n in FEATURE_CASES if n not in ("hint", "euclidean", "distance_metric", "normalized_feature_matching")
]


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
    loss = getattr(losses, name)(*_features(name), **arguments)
    assert loss.dtype == tf.float32 and loss.shape == ((len(_features(name)[0]),) if per_example else ())
    np.testing.assert_allclose(loss, reference(*_features(name), **arguments), rtol=1e-4)


@EACH_LOGIT
def test_logit_loss_equals_the_papers_formula(name):
  reference, options, _, per_example = LOGIT_CASES[name]
  for arguments in (options, {}):
    loss = getattr(losses, name)(*_logits(name), **arguments)
    assert loss.dtype == tf.float32 and loss.shape == ((7,) if per_example else ())
    np.testing.assert_allclose(loss, reference(*_logits(name), **arguments), rtol=2e-4)


@pytest.mark.parametrize("name", [*FEATURE_CASES, *LOGIT_CASES])
def test_gradient_matches_central_differences_of_the_reference(name):
  cases, arguments = (FEATURE_CASES, _features(name)) if name in FEATURE_CASES else (LOGIT_CASES, _logits(name))
  gradient = _gradient(getattr(losses, name), arguments)
  rng = np.random.default_rng(2)
  direction = rng.normal(size=gradient.shape)
  step = 1e-5
  values = [
    np.sum(cases[name][0](np.float64(arguments[0]), np.float64(arguments[1]) + sign * step * direction, *arguments[2:]))
    for sign in (1, -1)
  ]
  np.testing.assert_allclose(np.sum(gradient * direction), (values[0] - values[1]) / (2 * step), rtol=1e-3)


@EACH_FEATURE
def test_equal_features_give_zero_and_a_finite_gradient(name):
  teacher, _ = _features(name)
  np.testing.assert_allclose(getattr(losses, name)(teacher, teacher), 0, atol=1e-6)
  assert np.isfinite(_gradient(getattr(losses, name), [teacher, teacher])).all()


@EACH_FEATURE
@pytest.mark.parametrize("scale", [0.0, 1e-6, 1e6])
def test_extreme_features_stay_finite(name, scale):
  teacher, student = (scale * x for x in _features(name))
  assert np.isfinite(getattr(losses, name)(teacher, student)).all()
  assert np.isfinite(_gradient(getattr(losses, name), [teacher, student])).all()


@EACH_FEATURE
def test_half_precision_features_are_computed_in_float32(name):
  teacher, student = (tf.cast(100 * x, tf.float16) for x in _features(name))
  expected = FEATURE_CASES[name][0](teacher.numpy(), student.numpy())
  np.testing.assert_allclose(getattr(losses, name)(teacher, student), expected, rtol=1e-3)


@EACH_FEATURE
def test_a_batch_of_one_is_finite(name):
  teacher, student = (x[:1] for x in _features(name))
  assert np.isfinite(getattr(losses, name)(teacher, student)).all()
  assert np.isfinite(_gradient(getattr(losses, name), [teacher, student])).all()


@pytest.mark.parametrize("name", RELATIVE)
def test_scale_of_either_network_does_not_matter(name):
  teacher, student = _features(name)
  loss = getattr(losses, name)
  np.testing.assert_allclose(loss(3 * teacher, 0.01 * student), loss(teacher, student), rtol=1e-3)


@pytest.mark.parametrize(
  "name", ["similarity_preserving", "rkd_distance", "rkd_angle", "distance_metric", "probabilistic_transfer"]
)
def test_rotated_embeddings_have_the_same_relations(name):
  embedding = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)
  rotation, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(5, 5)))
  np.testing.assert_allclose(getattr(losses, name)(embedding, (embedding @ rotation).astype(np.float32)), 0, atol=1e-6)


@pytest.mark.parametrize(
  "name", ["similarity_preserving", "rkd_distance", "rkd_angle", "distance_metric", "probabilistic_transfer"]
)
def test_order_of_the_batch_does_not_matter_to_relations(name):
  teacher, student = _features(name)
  order = np.random.default_rng(0).permutation(len(teacher))
  loss = getattr(losses, name)
  np.testing.assert_allclose(loss(teacher[order], student[order]), loss(teacher, student), rtol=1e-4)


@pytest.mark.parametrize("name", ["rkd_distance", "rkd_angle", "distance_metric"])
def test_shifted_embeddings_have_the_same_distances(name):
  teacher, student = _features(name)
  loss = getattr(losses, name)
  np.testing.assert_allclose(loss(teacher + 50, student - 20), loss(teacher, student), rtol=1e-3)


def test_decoupled_terms_are_plain_distillation_when_weighted_by_the_teachers_doubt():
  # Zhao et al. 2022, eq. 5: KL = TCKD + (1 - p_y) NCKD.
  teacher, student, labels = _logits("decoupled")
  p = np.exp(teacher) / np.exp(teacher).sum(axis=1, keepdims=True)
  doubt = 1 - p[np.arange(7), labels]
  target = losses.decoupled(teacher, student, labels, 1.0, alpha=1.0, beta=0.0)
  rest = losses.decoupled(teacher, student, labels, 1.0, alpha=0.0, beta=1.0)
  np.testing.assert_allclose(target + doubt * rest, losses.soft_target_kl(teacher, student, 1.0), rtol=1e-4)


def test_decoupled_has_only_its_target_term_with_two_classes():
  teacher, student, _ = _logits("decoupled", classes=2)
  labels = np.array([0, 1, 1, 0, 0, 1, 0])
  expected = losses.soft_target_kl(teacher, student, 4.0).numpy() * 16
  np.testing.assert_allclose(losses.decoupled(teacher, student, labels), expected, rtol=1e-4)
  assert np.isfinite(_gradient(losses.decoupled, [teacher, student, labels])).all()


@EACH_LOGIT
@pytest.mark.parametrize("scale", [0.0, 1e-6, 1e4])
def test_extreme_logits_stay_finite(name, scale):
  teacher, student, *labels = _logits(name)
  arguments = [scale * teacher, scale * student, *labels]
  assert np.isfinite(getattr(losses, name)(*arguments)).all()
  assert np.isfinite(_gradient(getattr(losses, name), arguments)).all()


def test_correlation_forgives_scale_and_offset_of_probabilities_but_not_order():
  teacher = np.log(np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6], [0.3, 0.5, 0.2]], np.float32))
  blurred = np.log(0.5 * np.exp(teacher) + 0.5 / 3)
  np.testing.assert_allclose(losses.dist(teacher, blurred), 0, atol=1e-5)
  assert losses.dist(teacher, teacher[:, ::-1].copy()) > 0.5


@pytest.mark.parametrize("label", [-1, 5])
def test_labels_out_of_range_are_refused(label):
  teacher, student, labels = _logits("decoupled")
  labels[3] = label
  with pytest.raises(tf.errors.InvalidArgumentError, match="labels must be in 0.."):
    losses.decoupled(teacher, student, labels)


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
  ],
)
def test_shapes_that_do_not_fit_are_refused(name, shapes, words):
  with pytest.raises(ValueError, match=words):
    getattr(losses, name)(*(np.ones(shape, np.float32) for shape in shapes))


def test_docstring_example_is_true():
  results = doctest.testmod(attention, extraglobs={"tf": tf})
  assert results.failed == 0 and results.attempted == 2
