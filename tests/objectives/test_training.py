"""Every objective trains a float and a quantized student through `fit`, and survives saving.

All rows share one Distiller, traced once for each kind of student. Weights are variables, so that each row also
trains alone.
"""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import tfkd
from tests.objectives.rows import ROWS, WIDTHS, cnn
from tfkd import quantization

SPARSE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
FIT = {"batch_size": 16, "shuffle": False, "verbose": 0}


@pytest.fixture(scope="module")
def data():
  """Images [32, 8, 8, 3] whose class shows in colour and brightness."""
  rng = np.random.default_rng(0)
  labels = rng.integers(0, 4, 32)
  colours = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]])
  images = 0.3 * rng.uniform(size=(32, 8, 8, 3)) + 0.5 * colours[labels][:, None, None, :]
  return images.astype(np.float32), labels


@pytest.fixture(scope="module")
def teacher(data):
  keras.utils.set_random_seed(1)
  model = cnn(WIDTHS[0], "teacher")
  model.compile(keras.optimizers.Adam(0.01), SPARSE)
  model.fit(*data, batch_size=16, epochs=10, verbose=0)
  return model


def _distiller(teacher, student, hard_loss_weight=0.0):
  """A distiller of all rows, named by their cases, whose weights are variables."""
  objectives = []
  for case in ROWS:
    objective = ROWS[case].make()
    objective = type(objective).from_config(objective.get_config() | {"name": case})
    objective.weight = tf.Variable(float(objective.weight), trainable=False)
    objectives.append(objective)
  return tfkd.Distiller(teacher, student, objectives, hard_loss_weight=hard_loss_weight)


@pytest.fixture(scope="module", params=["float", pytest.param("w8a8", marks=pytest.mark.end_to_end)])
def shared(request, data, teacher):
  """A distiller of all rows, compiled; tests may train it further."""
  keras.utils.set_random_seed(0)
  student = cnn(WIDTHS[1], "student")
  if request.param == "w8a8":
    student = quantization.quantize(student, "w8a8", calibration_data=data[0])
  distiller = _distiller(teacher, student)
  distiller.compile(keras.optimizers.Adam(0.01), SPARSE)
  return distiller


def _set_weights(distiller, chosen):
  """Gives the objectives of `chosen` cases the weights of their rows, and all others 0."""
  for objective in distiller.objectives:
    objective.weight.assign(ROWS[objective.name].make().weight if objective.name in chosen else 0.0)


def _forget_momentum(distiller):
  for variable in distiller.optimizer.variables:
    variable.assign(tf.zeros_like(variable))


def test_every_objective_alone_trains_the_student(shared, data):
  kernel = next(v for v in shared.student.trainable_variables if "kernel" in v.name)
  shared.optimizer.build(shared.trainable_variables)
  for case in ROWS:
    _set_weights(shared, [case])
    _forget_momentum(shared)
    before = kernel.numpy()
    shared.reset_metrics()
    logs = shared.train_on_batch(data[0][:16], data[1][:16], return_dict=True)
    np.testing.assert_allclose(logs["loss"], ROWS[case].make().weight * logs[case], rtol=1e-4, err_msg=case)
    assert np.isfinite(kernel).all() and np.abs(kernel - before).max() > 1e-4, case


def test_all_objectives_together_lower_the_loss(shared, data):
  _set_weights(shared, ROWS)
  history = shared.fit(*data, epochs=4, **FIT).history
  assert all(np.isfinite(values).all() for values in history.values())
  assert history["loss"][-1] < history["loss"][0]


def test_students_and_connectors_are_trained_and_the_teacher_is_not(shared, data, teacher):
  distiller, frozen = shared, teacher.get_weights()
  _set_weights(distiller, ROWS)
  ours = {id(v) for part in (distiller.student, *distiller.objectives) for v in part.trainable_variables}
  assert ours == {id(v) for v in distiller.trainable_variables}
  assert not {id(v) for v in distiller.variables} & {id(v) for v in teacher.variables}
  before = [variable.numpy() for variable in distiller.trainable_variables]
  distiller.fit(*data, epochs=1, **FIT)
  for old, new in zip(frozen, teacher.get_weights(), strict=True):
    np.testing.assert_array_equal(old, new)
  unchanged = [
    variable.name
    for variable, value in zip(distiller.trainable_variables, before, strict=True)
    if np.array_equal(variable, value)
  ]
  assert not unchanged


def test_a_loaded_distiller_goes_on_as_the_saved_one(shared, data, teacher, tmp_path):
  distiller = shared
  _set_weights(distiller, ROWS)
  distiller.fit(*data, epochs=1, **FIT)
  distiller.save(tmp_path / "distiller.keras")
  loaded = keras.models.load_model(tmp_path / "distiller.keras")
  loaded.teacher = teacher
  loaded.run_eagerly = True  # Saves tracing it.
  saved, found = (m.evaluate(*data, batch_size=16, verbose=0, return_dict=True) for m in (distiller, loaded))
  assert saved.keys() == found.keys() >= ROWS.keys()
  for name, value in saved.items():
    np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-7, err_msg=name)
  saved, found = (model.fit(*data, epochs=1, **FIT).history for model in (distiller, loaded))
  for name, value in saved.items():
    np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-6, err_msg=name)
  student = distiller.student
  quantization.save(student, tmp_path / "student.keras")
  assert quantization.load(tmp_path / "student.keras").count_params() == student.count_params()


def test_examples_of_weight_zero_do_not_count(data, teacher):
  images, labels = data
  distiller = _distiller(teacher, cnn(WIDTHS[1], "student"))
  distiller.compile(keras.optimizers.SGD(0.01), SPARSE, run_eagerly=True)  # Each shape would be traced.
  weights = np.repeat([1.0, 0.0], 16).astype(np.float32)
  kept = distiller.test_on_batch(images[:16], labels[:16], return_dict=True)
  weighted = distiller.test_on_batch(images, labels, sample_weight=weights, return_dict=True)
  for case in ROWS:
    np.testing.assert_allclose(weighted[case], kept[case] / 2, rtol=1e-4, err_msg=case)  # Keras divides by 32.
  before = [variable.numpy() for variable in distiller.student.trainable_variables]
  distiller.train_on_batch(images, labels, sample_weight=0 * weights)
  for old, new in zip(before, distiller.student.trainable_variables, strict=True):
    np.testing.assert_array_equal(old, new)


def test_two_replicas_compare_their_own_share_of_the_batch(data, teacher, two_replicas):
  # A term of each example is the mean over all of them; a relational one the mean of the replicas' own.
  images, labels = data

  def made(run_eagerly=False):
    keras.utils.set_random_seed(3)
    distiller = _distiller(teacher, cnn(WIDTHS[1], "student"), hard_loss_weight=0.5)
    distiller.compile(keras.optimizers.SGD(1e-5), SPARSE, run_eagerly=run_eagerly)
    return distiller

  one = made(run_eagerly=True)
  whole, *halves = (
    one.test_on_batch(images[i], labels[i], return_dict=True) for i in (slice(32), slice(16), slice(16, 32))
  )
  with two_replicas.scope():
    two = made()
  batch = tf.data.Dataset.from_tensor_slices((images, labels)).batch(32)
  found = two.evaluate(batch, verbose=0, return_dict=True)
  for objective in one.objectives:
    name = objective.name
    expected = np.mean([half[name] for half in halves]) if objective.relational else whole[name]
    np.testing.assert_allclose(found[name], expected, rtol=1e-4, err_msg=name)
  np.testing.assert_allclose(found["hard_loss"], whole["hard_loss"], rtol=1e-5)
  two.run_eagerly = True  # Two steps cost less than their trace.
  losses = two.fit(batch, epochs=2, verbose=0).history
  assert all(np.isfinite(values).all() for values in losses.values())
