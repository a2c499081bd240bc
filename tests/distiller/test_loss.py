"""The Distiller's loss, weights and forward passes on one device, against float64 numpy."""

import numpy as np
import tensorflow as tf
import tf_keras as keras

from tests.distiller.small import compiled, cross_entropy, dense, with_batch_norm
from tests.losses import references
from tfkd.objectives import SoftTargets

layers = keras.layers


class TestTheTotalLoss:
  def test_is_the_weighted_sum_of_hard_and_soft_terms(self, vectors):
    x, y = vectors
    teacher, student = dense(), dense()
    t, s = teacher.predict(x, verbose=0), student.predict(x, verbose=0)
    objectives = [SoftTargets(5.0, weight=0.7, form="cross_entropy"), SoftTargets(2.0, weight=0.2, name="kl")]
    distiller = compiled(teacher, student, objectives, hard_loss_weight=0.3)
    logs = distiller.train_on_batch(x, y, return_dict=True)
    hard = cross_entropy(s, y)
    soft = 25 * references.soft_target_cross_entropy(t, s, 5.0).mean()
    kl = 4 * references.soft_target_kl(t, s, 2.0).mean()
    np.testing.assert_allclose(logs["hard_loss"], hard, rtol=1e-5)
    np.testing.assert_allclose(logs["soft_targets"], soft, rtol=1e-5)
    np.testing.assert_allclose(logs["kl"], kl, rtol=1e-4)
    np.testing.assert_allclose(logs["loss"], 0.3 * hard + 0.7 * soft + 0.2 * kl, rtol=1e-5)
    np.testing.assert_allclose(logs["agreement"], np.mean(t.argmax(1) == s.argmax(1)), rtol=1e-6)
    np.testing.assert_allclose(logs["accuracy"], np.mean(s.argmax(1) == y), rtol=1e-6)

  def test_steps_along_the_closed_form_gradient(self, vectors):
    x, y = vectors
    teacher = dense()
    student = keras.Sequential([keras.Input((6,)), layers.Dense(4)])
    kernel, bias = start = student.get_weights()
    t = np.float64(teacher.predict(x, verbose=0))
    s = np.float64(x) @ kernel + bias

    def softmax(z):
      e = np.exp(z - z.max(axis=1, keepdims=True))
      return e / e.sum(axis=1, keepdims=True)

    distiller = compiled(teacher, student, [SoftTargets(tf.Variable(1.0), weight=0.5)], hard_loss_weight=0.25)
    for temperature in (1.0, 5.0, 100.0):
      student.set_weights(start)
      distiller.objectives[0].temperature.assign(temperature)
      distiller.train_on_batch(x, y)
      soft = softmax(s / temperature) - softmax(t / temperature)
      error = 0.25 * (softmax(s) - np.eye(4)[y]) + 0.5 * temperature * soft
      np.testing.assert_allclose(student.get_weights()[0], kernel - 0.1 * x.T @ error / len(x), rtol=1e-4, atol=2e-6)
      np.testing.assert_allclose(student.get_weights()[1], bias - 0.1 * error.mean(axis=0), rtol=1e-4, atol=2e-6)

  def test_counts_regularizers_and_added_losses(self, vectors):
    x, y = vectors
    student = dense(kernel_regularizer=keras.regularizers.L2(100.0))
    student.add_loss(lambda: tf.constant(1000.0))
    s = student.predict(x, verbose=0)
    penalty = 100 * np.sum(np.square(student.get_layer("logits").get_weights()[0])) + 1000
    distiller = compiled(dense(), student, [SoftTargets(2.0, weight=0.0)])
    np.testing.assert_allclose(
      distiller.evaluate(x, y, verbose=0, return_dict=True)["loss"], cross_entropy(s, y) + penalty, rtol=1e-5
    )
    before = student.get_layer("logits").get_weights()[0]
    distiller.optimizer = keras.optimizers.SGD(1e-3)
    logs = distiller.train_on_batch(x, y, return_dict=True)
    np.testing.assert_allclose(logs["loss"], cross_entropy(s, y) + penalty, rtol=1e-5)
    after = student.get_layer("logits").get_weights()[0]
    assert np.linalg.norm(after) < 0.9 * np.linalg.norm(before)

  def test_averages_an_epoch_over_examples_with_an_uneven_last_batch(self, vectors):
    x, y = vectors
    teacher, student = dense(), dense()
    t, s = teacher.predict(x, verbose=0), student.predict(x, verbose=0)
    logs = compiled(teacher, student, [SoftTargets(3.0)]).evaluate(x, y, batch_size=10, verbose=0, return_dict=True)
    np.testing.assert_allclose(logs["soft_targets"], 9 * references.soft_target_kl(t, s, 3.0).mean(), rtol=1e-4)
    np.testing.assert_allclose(logs["hard_loss"], cross_entropy(s, y), rtol=1e-5)

  def test_of_labels_as_source_needs_no_teacher(self, vectors):
    x, y = vectors
    student = dense()
    s = student.predict(x, verbose=0)
    distiller = compiled(None, student, [SoftTargets(5.0, source="labels", weight=0.5)])
    logs = distiller.train_on_batch(x, y, return_dict=True)
    soft = 25 * references.tempered_cross_entropy(np.eye(4)[y], s, 5.0).mean()
    np.testing.assert_allclose(logs["loss"], cross_entropy(s, y) + 0.5 * soft, rtol=1e-5)

  def test_is_finite_with_logits_of_magnitude_1e4(self, vectors):
    x, y = vectors
    student = dense()
    distiller = compiled(
      lambda inputs: 1e4 * inputs[:, :4], student, [SoftTargets(1.0), SoftTargets(1.0, form="cross_entropy", name="ce")]
    )
    logs = distiller.fit(x * 1e4, y, epochs=2, verbose=0).history
    assert np.isfinite(list(logs.values())).all() and np.isfinite(student.get_weights()[0]).all()


class TestSampleWeights:
  def test_reach_every_term(self, vectors):
    x, y = vectors
    weights = np.linspace(0, 2, len(x)).astype(np.float32)
    teacher, student = dense(), dense()
    t, s = teacher.predict(x, verbose=0), student.predict(x, verbose=0)
    distiller = compiled(teacher, student, [SoftTargets(3.0)])
    logs = distiller.train_on_batch(x, y, sample_weight=weights, return_dict=True)
    soft = np.mean(9 * references.soft_target_kl(t, s, 3.0) * weights)
    np.testing.assert_allclose(logs["soft_targets"], soft, rtol=1e-4)
    np.testing.assert_allclose(logs["loss"], cross_entropy(s, y, weights) + soft, rtol=1e-4)

  def test_of_zero_take_no_step(self, vectors):
    x, y = vectors
    student = dense()
    before = student.get_weights()
    compiled(dense(), student, [SoftTargets(3.0)]).train_on_batch(x, y, sample_weight=np.zeros(len(x)))
    for old, new in zip(before, student.get_weights(), strict=True):
      np.testing.assert_array_equal(old, new)

  def test_class_weight_equals_the_same_sample_weight(self, vectors):
    x, y = vectors
    by_class = np.array([3.0, 0.0, 1.0, 0.5])
    student = dense()
    distiller, start, trained = compiled(dense(), student, [SoftTargets(3.0)]), student.get_weights(), []
    for weights in ({"class_weight": dict(enumerate(by_class))}, {"sample_weight": by_class[y]}, {}):
      student.set_weights(start)
      distiller.fit(x, y, batch_size=24, verbose=0, **weights)
      trained.append(student.get_weights()[0])
    np.testing.assert_allclose(trained[0], trained[1], rtol=1e-5, atol=1e-7)
    assert np.abs(trained[0] - trained[2]).max() > 1e-3


class _Counting:
  """A linear teacher that counts how often it is called eagerly or traced."""

  def __init__(self):
    self.calls = 0

  def __call__(self, x):
    self.calls += 1
    return x[:, :4]


class TestOneForwardPass:
  def test_of_teacher_and_student_however_many_objectives(self, vectors):
    x, y = vectors
    teacher, calls = _Counting(), []

    class Student(keras.Model):
      def __init__(self):
        super().__init__()
        self.dense = layers.Dense(4)

      def call(self, inputs, training=None):
        calls.append(training)
        return self.dense(inputs)

    objectives = [SoftTargets(float(t), name=f"soft{t}") for t in (1, 2, 3, 4)]
    distiller = compiled(teacher, Student(), objectives, compile_options={"run_eagerly": True})
    distiller.train_on_batch(x, y)
    assert teacher.calls == 1 and calls == [True]
    distiller.test_on_batch(x, y)
    assert teacher.calls == 2 and calls == [True, False]
    distiller.predict(x, verbose=0)
    assert teacher.calls == 2

  def test_moves_batch_normalisation_once(self, vectors):
    x, y = vectors
    student = with_batch_norm()
    hidden = keras.Model(student.inputs, student.get_layer("hidden").output).predict(x, verbose=0)
    objectives = [SoftTargets(2.0), SoftTargets(3.0, name="other")]
    compiled(dense(), student, objectives, keras.optimizers.SGD(0.0)).train_on_batch(x, y)
    np.testing.assert_allclose(student.get_layer("bn").moving_mean, 0.1 * hidden.mean(axis=0), rtol=1e-4, atol=1e-7)

  def test_evaluate_and_predict_change_no_variable(self, vectors):
    x, y = vectors
    distiller = compiled(with_batch_norm(), with_batch_norm(), [SoftTargets(2.0)])
    distiller.train_on_batch(x, y)
    before = [v.numpy() for v in distiller.variables]
    first = distiller.evaluate(x, y, verbose=0)
    distiller.predict(x, verbose=0)
    metric_variables = {id(v) for m in distiller.metrics for v in m.variables}
    for variable, old in zip(distiller.variables, before, strict=True):
      if id(variable) not in metric_variables:
        np.testing.assert_array_equal(variable.numpy(), old)
    assert distiller.evaluate(x, y, verbose=0) == first
