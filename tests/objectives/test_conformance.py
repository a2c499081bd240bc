"""Tests of every objective; they fail for an objective without a row in ROWS."""

import inspect
import json

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from tests.objectives.rows import BATCH, ROWS, called, inputs
from tfkd import objectives
from tfkd.objectives.base import snake_case

EACH = pytest.mark.parametrize("case", ROWS)


def _made(case):
  """An objective, built on its inputs and with its state prepared, and the inputs."""
  objective = ROWS[case].make()
  arguments = inputs(objective)
  called(objective, *arguments, training=False) if _trains(objective) else called(objective, *arguments)
  ROWS[case].prepare(objective)
  return objective, arguments


def _trains(objective):
  return "training" in inspect.signature(objective.call).parameters


def _value(objective, arguments):
  return called(objective, *arguments, **({"training": False} if _trains(objective) else {}))


def test_every_objective_has_a_row():
  classes = {
    c.__name__
    for c in vars(objectives).values()
    if isinstance(c, type) and keras.saving.get_registered_name(c) != c.__name__
  }
  assert classes == {type(row.make()).__name__ for row in ROWS.values()}
  assert {snake_case(name) for name in classes} <= set(objectives.names())


@EACH
def test_value_equals_the_reference(case):
  objective, arguments = _made(case)
  value = _value(objective, arguments)
  assert value.dtype == tf.float32 and value.shape == (() if objective.relational else (BATCH,))
  np.testing.assert_allclose(value, ROWS[case].expected(objective, *arguments), rtol=2e-4)


@EACH
def test_config_holds_every_argument_of_the_constructor(case):
  objective, arguments = _made(case)
  config = objective.get_config()
  parameters = set(inspect.signature(type(objective).__init__).parameters) - {"self", "options"}
  parameters |= {"weight", "output", "name"} | (
    {"standardize"} if isinstance(objective, objectives.LogitObjective) else set()
  )
  assert parameters == set(config) - {"trainable", "dtype"}
  assert type(objective).from_config({**config, "output": "head"}).get_config()["output"] == "head"
  serialized = json.loads(json.dumps(keras.saving.serialize_keras_object(objective)))
  copy = keras.saving.deserialize_keras_object(serialized)
  assert copy.get_config() == config and copy.weight == objective.weight and copy.name == objective.name
  assert copy.built or not objective.teacher_layers  # So that a file's weights find their place.
  assert [w.shape for w in copy.weights] == [w.shape for w in objective.weights]
  copy.set_weights(objective.get_weights())
  np.testing.assert_allclose(_value(copy, arguments), _value(objective, arguments), rtol=1e-5)


@EACH
def test_half_precision_arrives_as_float32(case):
  objective, arguments = _made(case)
  half = tf.nest.map_structure(np.float16, arguments[:2])
  keras.mixed_precision.set_global_policy("mixed_float16")
  try:
    copy = type(objective).from_config(objective.get_config())
    _value(copy, (*half, arguments[2]))
    copy.set_weights(objective.get_weights())
    value = _value(copy, (*half, arguments[2]))
  finally:
    keras.mixed_precision.set_global_policy("float32")
  assert value.dtype == tf.float32 and all(w.dtype.base_dtype in (tf.float32, tf.int32) for w in copy.weights)
  # Computed from the rounded inputs; a loss in half precision would differ in the third digit.
  rounded = tf.nest.map_structure(np.float32, half)
  if case != "hint_with_a_layer":  # A layer that the user passes keeps its dtype policy.
    np.testing.assert_allclose(value, ROWS[case].expected(copy, *rounded, arguments[2]), rtol=3e-4)


@EACH
def test_compiles_with_xla(case):
  objective, (teacher, student, labels) = _made(case)
  compiled = tf.function(lambda t, s: _value(objective, (t, s, labels)), jit_compile=True)
  np.testing.assert_allclose(compiled(teacher, student), _value(objective, (teacher, student, labels)), rtol=2e-4)


@EACH
def test_the_student_and_every_connector_get_a_gradient(case):
  objective, (teacher, student, labels) = _made(case)
  student = tf.nest.map_structure(tf.Variable, student)
  options, state = {"training": True} if _trains(objective) else {}, objective.get_weights()
  with tf.GradientTape() as tape:
    value = called(objective, teacher, student, labels, **options)
  gradients = tape.gradient(value, [*tf.nest.flatten(student), *objective.trainable_variables])
  # A gradient may be zero, as that of biases before a normalization; a missing one is a mistake.
  assert all(g is not None and np.isfinite(g).all() for g in gradients)
  of_student = gradients[: len(tf.nest.flatten(student))]
  assert all(np.abs(g).max() > 0 for g in of_student)
  # A short step against the gradient lowers the loss.
  length = 1e-3 / max(np.abs(g).max() for g in of_student)
  for variable, g in zip(tf.nest.flatten(student), of_student, strict=True):
    variable.assign_sub(length * g)
  objective.set_weights(state)  # Queues and statistics of the first call.
  stepped = called(objective, teacher, student, labels, **options)
  assert tf.reduce_sum(stepped) < tf.reduce_sum(value)


@EACH
def test_a_batch_of_one(case):
  objective = ROWS[case].make()
  teacher, student, labels = inputs(objective)
  one = tf.nest.map_structure(lambda x: x[:1], (teacher, student, labels))
  if objective.relational:
    with pytest.raises(ValueError, match="the batch has one: use at least two"):
      _value(objective, one)
    return
  objective, arguments = _made(case)
  np.testing.assert_allclose(_value(objective, one), _value(objective, arguments)[:1], rtol=2e-4)


@EACH
def test_an_empty_batch_is_finite_once_averaged(case):
  # What a replica gets when the last batch has fewer examples than there are replicas.
  objective, (teacher, student, labels) = _made(case)
  if any(len(w.shape) == 4 for w in objective.weights):
    pytest.skip("TensorFlow's own convolutions fail on an empty batch on CPU, the student's first")
  teacher, student, labels = tf.nest.map_structure(lambda x: x[:0], (teacher, student, labels))
  student = tf.nest.map_structure(tf.Variable, student)
  with tf.GradientTape() as tape:
    value = _value(objective, (teacher, student, labels))
    value = tf.where(tf.size(labels) > 0, value, 0.0) if objective.relational else tf.reduce_sum(value)
  gradients = tape.gradient(value, objective.trainable_variables)
  assert value == 0 and all(g is None or np.isfinite(g).all() for g in gradients)


@EACH
def test_evaluation_changes_no_state(case):
  objective, arguments = _made(case)
  before = objective.get_weights()
  _value(objective, arguments)
  for old, new in zip(before, objective.get_weights(), strict=True):
    np.testing.assert_array_equal(old, new)
