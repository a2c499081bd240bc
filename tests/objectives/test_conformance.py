"""What holds for every objective: one row each in OBJECTIVES, or the suite fails."""

import inspect

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from tests.losses import references
from tfkd import objectives
from tfkd.objectives import Objective, SoftTargets

_RNG = np.random.default_rng(0)
_TEACHER, _STUDENT = _RNG.normal(size=(2, 5, 4)).astype(np.float32)
_LABELS = np.array([0, 3, 2, 2, 1])
_ONE_HOT = np.eye(4, dtype=np.float32)[_LABELS]
_SMOOTH = 0.9 * _ONE_HOT + 0.025

# Non-default arguments, the first of the pair, and the expected value from the float64 reference.
OBJECTIVES = {
  "soft_targets": (
    SoftTargets(3.0, weight=0.7),
    _TEACHER,
    9 * references.soft_target_cross_entropy(_TEACHER, _STUDENT, 3.0),
  ),
  "soft_targets_kl": (
    SoftTargets(5.0, form="kl", name="kl"),
    _TEACHER,
    25 * references.soft_target_kl(_TEACHER, _STUDENT, 5.0),
  ),
  "soft_targets_unscaled": (
    SoftTargets(2.0, scale_by_t2=False, output="head", name="plain"),
    _TEACHER,
    references.soft_target_cross_entropy(_TEACHER, _STUDENT, 2.0),
  ),
  "soft_targets_of_labels": (
    SoftTargets(4.0, source="labels"),
    _LABELS,
    16 * references.tempered_cross_entropy(_ONE_HOT, _STUDENT, 4.0),
  ),
  "soft_targets_of_column_labels": (
    SoftTargets(4.0, source="labels", form="kl"),
    _LABELS[:, None],
    16 * references.tempered_cross_entropy(_ONE_HOT, _STUDENT, 4.0),
  ),
  "soft_targets_of_probabilities": (
    SoftTargets(1.5, source="labels", form="kl"),
    _SMOOTH,
    2.25 * references.soft_target_kl(1.5 * np.log(_SMOOTH), _STUDENT, 1.5),
  ),
}
EACH = pytest.mark.parametrize("case", OBJECTIVES)


def test_every_objective_has_a_row():
  classes = {c for c in vars(objectives).values() if isinstance(c, type) and issubclass(c, Objective)} - {Objective}
  assert classes == {type(objective) for objective, _, _ in OBJECTIVES.values()}


@EACH
def test_value_equals_the_reference(case):
  objective, source, expected = OBJECTIVES[case]
  loss = objective((tf.constant(source), tf.constant(_STUDENT)))
  assert loss.dtype == tf.float32
  np.testing.assert_allclose(loss, expected, rtol=1e-5)


@EACH
def test_config_holds_every_argument_of_the_constructor(case):
  objective, source, expected = OBJECTIVES[case]
  config = objective.get_config()
  parameters = set(inspect.signature(type(objective).__init__).parameters) - {"self", "kwargs"}
  assert parameters <= set(config)
  copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(objective))
  assert copy.get_config() == config and copy.weight == objective.weight and copy.name == objective.name
  np.testing.assert_allclose(copy((tf.constant(source), tf.constant(_STUDENT))), expected, rtol=1e-5)


@EACH
def test_half_precision_arrives_as_float32(case):
  objective, source, expected = OBJECTIVES[case]
  keras.mixed_precision.set_global_policy("mixed_float16")
  try:
    objective = type(objective).from_config(objective.get_config())
    loss = objective((tf.constant(source), tf.cast(_STUDENT, tf.float16)))
  finally:
    keras.mixed_precision.set_global_policy("float32")
  assert loss.dtype == tf.float32
  np.testing.assert_allclose(loss, expected, rtol=5e-3)


@EACH
def test_compiles_with_xla(case):
  objective, source, expected = OBJECTIVES[case]
  compiled = tf.function(objective.__call__, jit_compile=True)
  np.testing.assert_allclose(compiled((tf.constant(source), tf.constant(_STUDENT))), expected, rtol=1e-5)


@EACH
def test_a_batch_of_one(case):
  objective, source, expected = OBJECTIVES[case]
  loss = objective((tf.constant(source[:1]), tf.constant(_STUDENT[:1])))
  np.testing.assert_allclose(loss, expected[:1], rtol=1e-5)


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_a_meaningless_weight_is_refused(weight):
  with pytest.raises(ValueError, match=f"objective 'soft_targets' must be a finite number >= 0; got {weight}"):
    SoftTargets(weight=weight)


def test_unknown_forms_and_sources_are_refused():
  with pytest.raises(ValueError, match="'mse'"):
    SoftTargets(form="mse")
  with pytest.raises(ValueError, match="'student'"):
    SoftTargets(source="student")
  with pytest.raises(ValueError, match="got 0"):
    SoftTargets(temperature=0)


def test_labels_of_the_wrong_shape_are_refused():
  with pytest.raises(ValueError, match=r"\(5, 3\) for student logits \(5, 4\)"):
    SoftTargets(source="labels")((tf.zeros([5, 3]), tf.zeros([5, 4])))
