"""Divergences of which the teacher's largest logits are known, against float64 numpy."""

import numpy as np
import pytest
import tensorflow as tf

from tfkd import losses

RNG = np.random.default_rng(0)
TEACHER, STUDENT = 3 * RNG.normal(size=(5, 9)), 2 * RNG.normal(size=(5, 9))


def _softmax(logits, temperature=1.0):
  e = np.exp((logits - logits.max(-1, keepdims=True)) / temperature)
  return e / e.sum(-1, keepdims=True)


def _order(k):
  return np.argsort(-TEACHER, axis=-1)[:, :k]


def _aggregated(probabilities, classes):
  """The probabilities of these classes and of all others together."""
  top = np.take_along_axis(probabilities, classes, axis=-1)
  return np.concatenate([top, 1 - top.sum(-1, keepdims=True)], axis=-1)


def _with_equal_rest(k):
  """The teacher's logits, with equal ones of the same sum in place of all but the k largest."""
  logits, others = TEACHER.copy(), np.argsort(-TEACHER, axis=-1)[:, k:]
  rest = np.log(np.exp(np.take_along_axis(TEACHER, others, -1)).sum(-1, keepdims=True))
  np.put_along_axis(logits, others, rest - np.log(others.shape[1]), axis=-1)
  return logits


def test_the_largest_logits_and_the_log_sum_of_the_others():
  kept = losses.top_k(tf.constant(TEACHER), 3)
  np.testing.assert_array_equal(kept.classes, _order(3))
  np.testing.assert_allclose(kept.values, np.take_along_axis(TEACHER, _order(3), -1), rtol=1e-6)
  others = np.take_along_axis(TEACHER, np.argsort(-TEACHER, axis=-1)[:, 3:], -1)
  np.testing.assert_allclose(kept.log_rest, np.log(np.exp(others).sum(-1)), rtol=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("k", [1, 3, 8])
def test_probabilities_are_those_of_the_classes_and_of_the_rest(k, temperature):
  teacher, student = losses.with_rest(losses.top_k(tf.constant(TEACHER), k), tf.constant(STUDENT), temperature)
  classes = _order(k)
  expected = _aggregated(_softmax(STUDENT, temperature), classes)
  np.testing.assert_allclose(tf.nn.softmax(student / temperature), expected, rtol=1e-5)
  # At T = 1 the teacher's rest is exact; else its classes share it.
  known = TEACHER if temperature == 1 else _with_equal_rest(k)
  expected = _aggregated(_softmax(known, temperature), classes)
  np.testing.assert_allclose(tf.nn.softmax(teacher / temperature), expected, rtol=1e-5)


def test_a_divergence_is_at_most_that_of_all_classes_and_grows_with_k():
  dense = losses.soft_target_kl(tf.constant(TEACHER), tf.constant(STUDENT), 1.0).numpy()
  found = [
    losses.soft_target_kl(*losses.with_rest(losses.top_k(tf.constant(TEACHER), k), tf.constant(STUDENT)), 1.0).numpy()
    for k in range(1, 10)
  ]
  assert all((a <= b + 1e-6).all() for a, b in zip(found, found[1:], strict=False))
  np.testing.assert_allclose(found[-1], dense, rtol=1e-5)
  p, q = _softmax(TEACHER), _softmax(STUDENT)
  a, b = _aggregated(p, _order(3)), _aggregated(q, _order(3))
  np.testing.assert_allclose(found[2], (a * np.log(a / b)).sum(-1), rtol=1e-4)


def _decoupled(teacher, student, labels, temperature, beta):
  """Eq. 7 of the paper, for distributions."""
  total = []
  for t, s, y in zip(teacher, student, labels, strict=True):
    p, q = _softmax(t[None], temperature)[0], _softmax(s[None], temperature)[0]
    one = p[y] * np.log(p[y] / q[y]) + (1 - p[y]) * np.log((1 - p[y]) / (1 - q[y]))
    o, r = np.delete(p, y) / (1 - p[y]), np.delete(q, y) / (1 - q[y])
    total.append(temperature**2 * (one + beta * (o * np.log(o / r)).sum()))
  return np.array(total)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("k", [1, 4, 8, 9])
def test_decoupled_with_labels_that_are_and_are_not_among_the_classes(k, temperature):
  for rank in range(9):  # The label is the teacher's first choice, the second, ...
    labels = np.argsort(-TEACHER, axis=-1)[:, rank].astype(np.int32)
    kept = losses.top_k(tf.constant(TEACHER), k)
    rows = losses.with_label_and_rest(kept, tf.constant(STUDENT), tf.constant(labels), temperature)
    found = losses.decoupled(*rows, temperature, beta=2.0)
    # The same on distributions of the k classes, the label, and the rest as one class.
    teacher = _with_equal_rest(k) if k < 9 else TEACHER
    columns = _order(k) if rank < k else np.concatenate([_order(k), labels[:, None]], axis=1)
    a, b = (_aggregated(_softmax(z, temperature), columns) for z in (teacher, STUDENT))
    if columns.shape[1] == 9:
      a, b = a[:, :9], b[:, :9]
    position = np.array([list(row).index(label) for row, label in zip(columns, labels, strict=True)])
    expected = _decoupled(temperature * np.log(a), temperature * np.log(b), position, temperature, 2.0)
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=1e-5, err_msg=str(rank))


@pytest.mark.parametrize("k", [1, 4, 8, 9])
@pytest.mark.parametrize("temperature", [1.0, 0.05, 50.0])
def test_gradients_are_finite_and_zero_where_the_distributions_agree(k, temperature):
  student, kept = tf.Variable(10 * STUDENT, dtype=tf.float32), losses.top_k(tf.constant(10 * TEACHER), k)
  labels = tf.constant(np.argsort(-TEACHER, axis=-1)[:, 5].astype(np.int32))
  with tf.GradientTape() as tape:
    kl = losses.soft_target_kl(*losses.with_rest(kept, student, temperature), temperature)
    decoupled = losses.decoupled(*losses.with_label_and_rest(kept, student, labels, temperature), temperature)
    loss = tf.reduce_sum(kl + decoupled)
  assert np.isfinite(tape.gradient(loss, student)).all() and np.isfinite(loss)
  same = tf.constant(_with_equal_rest(k) if k < 9 else TEACHER, tf.float32)
  kept = losses.top_k(same, k)
  np.testing.assert_allclose(losses.soft_target_kl(*losses.with_rest(kept, same, 3.0), 3.0), 0, atol=1e-5)


def test_positions_have_distributions_of_their_own():
  teacher, student = (tf.constant(RNG.normal(size=(2, 4, 3, 7)), tf.float32) for _ in range(2))
  whole = losses.with_rest(losses.top_k(teacher, 2), student, 2.0)
  for found, part in zip(whole, losses.with_rest(losses.top_k(teacher[1, 2], 2), student[1, 2], 2.0), strict=True):
    assert found.shape == (2, 4, 3, 3)
    np.testing.assert_allclose(found[1, 2], part, rtol=1e-6)


def test_shapes_that_do_not_fit_are_named():
  kept = losses.top_k(tf.constant(TEACHER), 4)
  with pytest.raises(ValueError, match="outputs have 4 classes each, and the student has 3"):
    losses.with_rest(kept, tf.zeros([5, 3]))
  with pytest.raises(ValueError, match="expected shapes that agree in all axes but the last"):
    losses.with_rest(kept, tf.zeros([5, 2, 9]))
