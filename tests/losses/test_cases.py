"""Tests of every loss: reference, gradient, minimum, invariances, extreme values, dtypes and errors."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.losses.cases import CASES, CHANNELS, ROTATION, SCALE, SHIFT, function, gradient, inputs
from tfkd import losses, objectives
from tfkd.objectives.base import snake_case

EACH = pytest.mark.parametrize("name", CASES)
FEW = settings(max_examples=15, deadline=None, derandomize=True)
SEEDS = st.integers(0, 2**32 - 1)


def test_every_public_loss_has_a_row():
  public = {name for name in dir(losses) if not name.startswith("_") and callable(getattr(losses, name))}
  # Functions of logits that losses read; those of the largest logits have tests of their own.
  of_logits = {"standardize_logits", "TopK", "top_k", "with_rest", "with_label_and_rest"}
  assert public == CASES.keys() | of_logits


def test_every_objective_is_named_in_the_row_of_its_loss():
  classes = {c.__name__ for c in vars(objectives).values() if isinstance(c, type)}
  known = {name for name in objectives.names() if name in map(snake_case, classes)}  # Not classes of other tests.
  assert known == {name for case in CASES.values() for name in case.objectives}


@EACH
def test_value_equals_the_papers_formula(name):
  case = CASES[name]
  for options in (case.options, {}):
    arguments = inputs(name)
    loss = function(name)(*arguments, **options)
    assert loss.dtype == tf.float32 and loss.shape == ((len(arguments[0]),) if case.per_example else ())
    defaults = {} if options or name not in _TEMPERED else {"temperature": 2.0}
    np.testing.assert_allclose(loss, case.reference(*arguments, **options, **defaults), rtol=2e-4)


# Losses whose temperature has no default.
_TEMPERED = (
  "soft_target_cross_entropy", "soft_target_kl", "soft_target_reverse_kl", "soft_target_jsd", "binary_soft_target_kl",
  "tempered_cross_entropy",
)  # fmt: skip


def _reference(name, *arguments):
  return CASES[name].reference(*arguments, **({"temperature": 2.0} if name in _TEMPERED else {}))


@EACH
def test_gradient_equals_central_differences_of_the_reference(name):
  teacher, student, *labels = inputs(name)
  found = gradient(function(name), [teacher, student, *labels])
  direction = np.random.default_rng(2).normal(size=found.shape)
  up, down = (
    np.sum(_reference(name, np.float64(teacher), np.float64(student) + step * direction, *labels))
    for step in (1e-5, -1e-5)
  )
  np.testing.assert_allclose(np.sum(found * direction), (up - down) / 2e-5, rtol=1e-3)


@EACH
def test_minimum_is_the_known_one_and_its_gradient_is_finite(name):
  case, (teacher, _, *labels) = CASES[name], inputs(name)
  best = case.best(teacher)
  found = function(name)(teacher, best, *labels)
  np.testing.assert_allclose(found, case.minimum(teacher, *labels), rtol=1e-5, atol=1e-6)
  assert np.isfinite(gradient(function(name), [teacher, best, *labels])).all()


@EACH
@pytest.mark.parametrize("scale", [0.0, 1e-6, 1e4, 1e6])
def test_extreme_values_stay_finite(name, scale):
  teacher, student, *labels = inputs(name)
  if CASES[name].draw != "probabilities":
    teacher = np.float32(scale) * teacher
  arguments = [teacher, np.float32(scale) * student, *labels]
  assert np.isfinite(function(name)(*arguments)).all()
  assert np.isfinite(gradient(function(name), arguments)).all()


@EACH
def test_half_precision_is_computed_in_float32(name):
  teacher, student, *labels = inputs(name)
  scale = 100 if CASES[name].draw == "features" else 1  # Squares exceed the range of float16.
  teacher, student = np.float16(scale * teacher), np.float16(scale * student)
  loss = function(name)(tf.constant(teacher), tf.constant(student), *labels)
  assert loss.dtype == tf.float32
  np.testing.assert_allclose(loss, _reference(name, teacher, student, *labels), rtol=1e-3, atol=1e-6)


@EACH
def test_a_batch_of_one_is_finite(name):
  arguments = inputs(name, batch=1)
  assert np.isfinite(function(name)(*arguments)).all()
  assert np.isfinite(gradient(function(name), arguments)).all()


@EACH
@pytest.mark.parametrize("fill", ["zero", "twin"])
def test_gradient_is_bounded_where_an_example_is_zero_or_repeated(name, fill):
  teacher, student, *labels = inputs(name)
  student[0] = student[1] if fill == "twin" else 0
  assert np.abs(gradient(function(name), [teacher, student, *labels])).max() < 100


@EACH
@FEW
@given(seed=SEEDS)
def test_permuting_the_batch_permutes_losses_of_examples_and_leaves_relations(name, seed):
  case, arguments = CASES[name], inputs(name, seed)
  if not case.permutes:
    return
  order = np.random.default_rng(seed).permutation(len(arguments[0]))
  loss, permuted = function(name)(*arguments), function(name)(*(x[order] for x in arguments))
  np.testing.assert_allclose(permuted, tf.gather(loss, order) if case.per_example else loss, rtol=1e-4, atol=1e-6)


def _scaled(rng, teacher, student):
  of_teacher, of_student = np.float32(10.0 ** rng.uniform(-3, 3, 2))
  return of_teacher * teacher, of_student * student


def _shifted(rng, teacher, student):
  of_teacher, of_student = rng.integers(1, 51, 2) * rng.choice([-1, 1], 2)
  return teacher + np.float32(of_teacher), student + np.float32(of_student)


def _rotated(rng, teacher, student):
  rotation, _ = np.linalg.qr(rng.normal(size=2 * student.shape[-1:]))
  return teacher, (student @ rotation).astype(np.float32)


def _reordered(rng, teacher, student):
  order = np.roll(np.arange(student.shape[-1]), rng.integers(1, student.shape[-1]))
  return teacher, student[..., order]


TRANSFORMS = {
  SCALE: (_scaled, 1e-3),
  SHIFT: (_shifted, 5e-3),
  ROTATION: (_rotated, 1e-3),
  CHANNELS: (_reordered, 1e-3),
}


def _is_unchanged(name, transform, seed):
  teacher, student, *labels = inputs(name, seed)
  transformed, tolerance = TRANSFORMS[transform]
  changed = transformed(np.random.default_rng(seed), teacher, student)
  before, after = (function(name)(*pair, *labels).numpy() for pair in ((teacher, student), changed))
  return np.allclose(after, before, rtol=tolerance, atol=2e-6)


@pytest.mark.parametrize("name, transform", [(name, t) for name, case in CASES.items() for t in case.invariances])
@FEW
@given(seed=SEEDS)
def test_transform_leaves_the_loss_unchanged(name, transform, seed):
  assert _is_unchanged(name, transform, seed)


@EACH
def test_row_names_every_invariance(name):
  others = TRANSFORMS.keys() - set(CASES[name].invariances)
  assert not {transform for transform in others if _is_unchanged(name, transform, 3)}


@pytest.mark.parametrize("name, shapes, words", [(n, r[:2], r[2]) for n, case in CASES.items() for r in case.refused])
def test_shapes_that_do_not_fit_are_refused(name, shapes, words):
  labels = [np.zeros(shapes[0][0], int)] if CASES[name].draw == "labelled" else []
  with pytest.raises(ValueError, match=words):
    function(name)(*(np.ones(shape, np.float32) for shape in shapes), *labels)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.bad_options])
def test_meaningless_arguments_are_refused_with_their_value(name):
  for options, words in CASES[name].bad_options:
    with pytest.raises(ValueError, match=words):
      function(name)(*inputs(name), **options)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.draw == "labelled"])
@pytest.mark.parametrize("label", [-1, 5])
def test_labels_out_of_range_are_refused(name, label):
  teacher, student, labels = inputs(name)
  labels[3] = label
  with pytest.raises(tf.errors.InvalidArgumentError, match="labels must be in 0.."):
    function(name)(teacher, student, labels)
