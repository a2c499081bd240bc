"""Several teachers by name: each objective reads its own, and names that do not fit are refused."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import tfkd
from tests.distiller.small import compiled, dense
from tests.losses import references
from tfkd.features import ModelOutputs
from tfkd.objectives import Hint, SoftTargets
from tfkd.teachers import Frozen, Precomputed, cache


def _model(hidden=8):
  layers = keras.layers
  return keras.Sequential([keras.Input((6,)), layers.Dense(hidden, name="hidden"), layers.Dense(4, name="logits")])


def _terms():
  return [
    SoftTargets(2.0, teacher="a", name="of_a"),
    SoftTargets(3.0, teacher="b", name="of_b"),
    Hint("hidden", "hidden", teacher="b", connector="linear", weight=1.0),
    SoftTargets(2.0, teacher="b", name="again"),
  ]


def _kl(teacher, student, x, temperature):
  t, s = (model.predict(x, verbose=0) for model in (teacher, student))
  return temperature**2 * references.soft_target_kl(t, s, temperature).mean()


def test_each_objective_reads_its_own_teacher_which_runs_once(vectors):
  x, y = vectors
  first, second, student = _model(), _model(5), _model(3)
  runs = []

  def counted(batch):
    with tf.control_dependencies([tf.numpy_function(lambda n: runs.append(n) or n, [tf.shape(batch)[0]], tf.int32)]):
      outputs, features = Frozen(second)(tf.identity(batch), ["hidden"])
    return ModelOutputs(outputs, features)

  distiller = compiled({"a": first, "b": counted}, student, _terms())
  assert distiller.objectives[2].built and list(distiller.teacher) == ["a", "b"]
  expected = {"of_a": _kl(first, student, x, 2.0), "of_b": _kl(second, student, x, 3.0)}
  logs = distiller.evaluate(x, y, batch_size=len(x), verbose=0, return_dict=True)
  assert len(runs) == 1
  for name, value in expected.items():
    assert logs[name] == pytest.approx(value, rel=1e-4), name
  choices = [model.predict(x, verbose=0).argmax(1) for model in (first, student)]
  assert logs["agreement"] == pytest.approx(np.mean(choices[0] == choices[1]))
  weights = first.get_weights() + second.get_weights()
  distiller.fit(x, y, verbose=0)
  for old, new in zip(weights, first.get_weights() + second.get_weights(), strict=True):
    np.testing.assert_array_equal(old, new)
  assert len(distiller.trainable_variables) == 4 + 2  # Student and connector.


def test_another_name_or_other_teachers_take_effect_after_a_fit(vectors):
  x, y = vectors
  first, second, student = _model(), _model(), _model()
  distiller = compiled({"a": first, "b": second}, student, [SoftTargets(2.0, teacher="a")])

  def measured():
    return distiller.evaluate(x, y, batch_size=len(x), verbose=0, return_dict=True)["soft_targets"]

  assert measured() == pytest.approx(_kl(first, student, x, 2.0), rel=1e-4)
  distiller.objectives[0].teacher_name = "b"
  assert measured() == pytest.approx(_kl(second, student, x, 2.0), rel=1e-4)
  distiller.teacher = {"b": first}
  assert measured() == pytest.approx(_kl(first, student, x, 2.0), rel=1e-4)
  with pytest.raises(TypeError):
    distiller.teacher["b"] = second
  with pytest.raises(ValueError, match="reads teacher 'b', and the distiller has the teachers c"):
    distiller.teacher = {"c": second}
  assert measured() == pytest.approx(_kl(first, student, x, 2.0), rel=1e-4)


@pytest.mark.parametrize(
  "teacher, options, words",
  [
    ("ab", {"teacher": "c"}, "'soft_targets' reads teacher 'c', and the distiller has the teachers a, b"),
    ("ab", {}, "'soft_targets' names none of the teachers a, b: set its option `teacher`"),
    (None, {"teacher": "a"}, "reads teacher 'a', and the distiller has one teacher without a name: pass a dict"),
    ("", {"teacher": "a"}, "as a dict from name to teacher; got the names \\[\\]"),
    ([1], {}, "as a dict from name to teacher; got the names \\[1\\]"),
  ],
)
def test_names_that_do_not_fit_are_refused(teacher, options, words):
  teacher = dense() if teacher is None else {name: dense() for name in teacher}
  with pytest.raises(ValueError, match=words):
    tfkd.Distiller(teacher, dense(), SoftTargets(2.0, **options))


def test_shapes_and_layers_of_each_teacher_are_checked():
  with pytest.raises(ValueError, match="teacher logits have 7 classes"):
    tfkd.Distiller({"a": dense(), "b": dense(7)}, dense(), SoftTargets(teacher="b"))
  with pytest.raises(ValueError, match="has no layer 'hidden'"):
    tfkd.Distiller({"a": dense(), "b": _model()}, _model(), Hint("hidden", "hidden", teacher="a"))
  with pytest.raises(TypeError, match="must be a model or a function"):
    tfkd.Distiller({"a": dense(), "b": 3}, dense(), SoftTargets(teacher="a"))


def test_a_dict_of_one_needs_no_names_and_equals_the_teacher_alone(vectors):
  x, y = vectors
  teacher, students = _model(), [dense(), dense()]
  students[1].set_weights(students[0].get_weights())
  for given, student in zip((teacher, {"a": teacher}), students, strict=True):
    compiled(given, student, [SoftTargets(2.0)]).fit(x, y, batch_size=8, shuffle=False, verbose=0)
  for one, other in zip(*(student.get_weights() for student in students), strict=True):
    np.testing.assert_array_equal(one, other)


def test_names_are_saved_and_loaded(vectors, tmp_path):
  x, y = vectors
  teachers = {"a": _model(), "b": _model(5)}
  distiller = compiled(teachers, _model(3), _terms())
  distiller.fit(x, y, verbose=0)
  distiller.save(tmp_path / "saved.keras")
  loaded = keras.models.load_model(tmp_path / "saved.keras")
  assert [objective.teacher_name for objective in loaded.objectives] == ["a", "b", "b", "b"]
  loaded.teacher = teachers
  expected, found = (d.evaluate(x, y, verbose=0, return_dict=True) for d in (distiller, loaded))
  assert found == pytest.approx(expected, rel=1e-5)


def test_outputs_in_the_data_are_read_by_name(vectors, tmp_path):
  x, y = vectors
  first, second, online = _model(), _model(5), _model(3)
  offline = keras.models.clone_model(online)
  offline.set_weights(online.get_weights())
  in_order = tfkd.data.batches(x, None, 8)
  cached = {
    "a": cache(first, in_order, tmp_path / "a"),
    "b": cache(second, in_order, tmp_path / "b", layers=["hidden"]),
  }
  outputs = {name: teacher.outputs for name, teacher in cached.items()}
  runs = compiled({"a": first, "b": second}, online, _terms()), compiled(cached, offline, _terms())
  runs[1].objectives[2].set_weights(runs[0].objectives[2].get_weights())
  runs[0].fit(tfkd.data.batches(x, y, 8), epochs=2, verbose=0)
  runs[1].fit(tfkd.data.batches((x, outputs), y, 8), epochs=2, verbose=0)
  for one, other in zip(online.get_weights(), offline.get_weights(), strict=True):
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
  mixed = compiled({"a": first, "b": Precomputed()}, _model(3), [SoftTargets(teacher="b")])
  stored = second.predict(x, verbose=0)
  assert np.isfinite(mixed.train_on_batch((x, {"b": stored}), y)).all()
  with pytest.raises(ValueError, match="teacher 'b' reads batches of .*; the second part of the inputs is of a"):
    mixed.train_on_batch((x, {"a": stored}), y)


def test_outputs_of_any_teacher_that_are_not_finite_raise(vectors):
  x, y = vectors
  distiller = compiled({"a": dense(), "b": lambda batch: batch[:, :4] * np.nan}, dense(), [SoftTargets(teacher="b")])
  with pytest.raises(tf.errors.InvalidArgumentError, match="teacher outputs contain"):
    distiller.train_on_batch(x, y)
