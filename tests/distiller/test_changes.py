"""Agreement, assignments after a fit, overridden methods and saving."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import tfkd
from tests.distiller.small import SPARSE, compiled, dense
from tests.objectives.rows import cnn
from tfkd import objectives as o
from tfkd import quantization

layers = keras.layers


class TestAgreement:
  def test_is_measured_by_output_and_of_any_rank(self):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, 5, 3)).astype(np.float32)
    x[:, 3:] = 0  # Masked.

    def build():
      inputs = keras.Input((5, 3))
      hidden = layers.Masking()(inputs)
      pooled = layers.GlobalAveragePooling1D()(hidden)
      heads = {
        "tags": layers.Dense(4, name="tags")(hidden),
        "label": layers.Dense(3, name="label")(pooled),
        "box": layers.Dense(4, name="box")(pooled),
        "binary": layers.Dense(1, name="binary")(pooled),
      }
      return keras.Model(inputs, heads)

    teacher, student = build(), build()
    distiller = tfkd.Distiller(teacher, student, o.SoftTargets(output="tags"))
    binary = keras.losses.BinaryCrossentropy(from_logits=True)
    distiller.compile("sgd", {"tags": None, "label": SPARSE, "box": "mse", "binary": binary})
    labels = {"tags": np.zeros((6, 5)), "label": np.zeros(6), "box": np.zeros((6, 4)), "binary": np.zeros((6, 1))}
    weights = np.array([1.0, 2.0, 0.0, 1.0, 0.5, 0.0])
    logs = distiller.test_on_batch(x, labels, sample_weight={"label": weights}, return_dict=True)
    assert {name for name in logs if "agreement" in name} == {"tags_agreement", "label_agreement"}
    same = {k: teacher(x)[k].numpy().argmax(-1) == student(x)[k].numpy().argmax(-1) for k in ("tags", "label")}
    np.testing.assert_allclose(logs["tags_agreement"], same["tags"][:, :3].mean(), rtol=1e-6)
    np.testing.assert_allclose(logs["label_agreement"], same["label"][weights > 0].mean(), rtol=1e-6)

  def test_is_not_reported_if_it_was_not_measured(self, vectors):
    x, y = vectors
    targets = np.random.default_rng(0).normal(size=(24, 4)).astype(np.float32)
    regression = tfkd.Distiller(dense(), dense(), o.Hint("logits", "logits"))
    regression.compile("sgd", "mse")
    assert "agreement" not in regression.fit(x, targets, verbose=0).history
    one = tfkd.Distiller(dense(1), dense(1), o.Hint("logits", "logits"))
    one.compile("sgd", keras.losses.BinaryCrossentropy(from_logits=True))
    assert "agreement" not in one.test_on_batch(x, y % 2, return_dict=True)
    assert "agreement" in compiled(dense(), dense(), o.Hint("logits", "logits")).fit(x, y, verbose=0).history


class TestAssignmentsAfterFit:
  def test_take_effect(self, vectors):
    x, y = vectors
    distiller = compiled(dense(), dense(), o.SoftTargets(2.0, form="kl"), keras.optimizers.SGD(0.0))

    def loss():
      return distiller.train_on_batch(x, y, return_dict=True, reset_metrics=True)

    first = loss()
    distiller.hard_loss_weight = 0.0
    assert loss()["loss"] == pytest.approx(first["soft_targets"], rel=1e-5)
    distiller.objectives[0].weight = 0.5
    assert loss()["loss"] == pytest.approx(first["soft_targets"] / 2, rel=1e-5)
    assert distiller.test_on_batch(x, y, return_dict=True)["loss"] == pytest.approx(first["soft_targets"] / 2, rel=1e-5)
    distiller.objectives[0].temperature = 5.0
    colder = loss()["soft_targets"]
    assert abs(colder / first["soft_targets"] - 1) > 1e-2
    distiller.objectives[0].scale_by_t2 = False
    assert loss()["soft_targets"] == pytest.approx(colder / 25, rel=1e-5)
    distiller.objectives = [o.Hint("logits", "logits", weight=2.0)]
    logs = loss()
    assert "soft_targets" not in logs and logs["loss"] == pytest.approx(2 * logs["hint"], rel=1e-5)
    distiller.objectives.append(o.SoftTargets(3.0, weight=0.0, name="more"))
    assert "more" in loss()
    del distiller.objectives[1]
    assert "more" not in loss()
    distiller.teacher = distiller.student
    assert loss()["hint"] == 0

  def test_by_a_callback_take_effect_in_the_next_step(self, vectors):
    x, y = vectors
    distiller = compiled(dense(), dense(), o.SoftTargets(2.0), keras.optimizers.SGD(0.0))

    def change(epoch, logs):
      distiller.objectives[0].weight = float(epoch)
      distiller.hard_loss_weight = 0.0

    fit = {"epochs": 3, "verbose": 0, "callbacks": [keras.callbacks.LambdaCallback(on_epoch_begin=change)]}
    history = distiller.fit(x, y, **fit).history
    np.testing.assert_allclose(
      history["loss"], [0, history["soft_targets"][0], 2 * history["soft_targets"][0]], rtol=1e-5
    )

  def test_of_invalid_values_are_refused(self, vectors):
    distiller = compiled(dense(), dense(), o.SoftTargets(2.0))
    for name, value in (("weight", -1.0), ("weight", None), ("temperature", 0.0), ("temperature", "4")):
      with pytest.raises((TypeError, ValueError), match=f"{name} .*got"):
        setattr(distiller.objectives[0], name, value)
    for name in ("form", "source"):
      with pytest.raises(ValueError, match=f"{name} must be .*got 'KLD'"):
        setattr(distiller.objectives[0], name, "KLD")
    for name, value in (("hard_loss_weight", -1), ("hard_loss_weight", "1"), ("student", dense())):
      with pytest.raises(ValueError, match="must be a finite number|make another Distiller"):
        setattr(distiller, name, value)
    with pytest.raises(TypeError, match="objectives must be"):
      distiller.objectives = [SPARSE]
    with pytest.raises(ValueError, match="has no layer 'missing'"):
      distiller.objectives = [o.Hint("missing", "logits")]
    assert distiller.objectives[0].name == "soft_targets"


class TestOverrides:
  def test_of_compute_loss_and_compute_metrics_take_effect(self, vectors):
    class Mine(tfkd.Distiller):
      def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None):
        return 3.0 + 0.0 * tf.reduce_sum(y_pred)

      def compute_metrics(self, x, y, y_pred, sample_weight):
        return {**super().compute_metrics(x, y, y_pred, sample_weight), "mine": tf.constant(7.0)}

    x, y = vectors
    distiller = Mine(dense(), dense(), o.SoftTargets(weight=0.0), hard_loss_weight=2.0)
    distiller.compile("sgd")
    for logs in (distiller.train_on_batch(x, y, return_dict=True), distiller.evaluate(x, verbose=0, return_dict=True)):
      assert (logs["hard_loss"], logs["loss"], logs["mine"]) == (3.0, 6.0, 7.0)

  def test_that_return_no_number_are_refused(self, vectors):
    class Mine(tfkd.Distiller):
      def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None):
        return tf.reduce_sum(y_pred, 1)

    vector = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="none")
    for make, loss in ((Mine, None), (tfkd.Distiller, vector)):
      distiller = make(dense(), dense())
      distiller.compile("sgd", loss)
      with pytest.raises(ValueError, match="the hard loss has shape .* one number is expected"):
        distiller.train_on_batch(*vectors)

  @pytest.mark.parametrize("value", [None, (1.0, 2.0), 0.5, tf.constant(0.5, tf.float64)], ids=str)
  def test_of_an_objectives_call_may_return_any_number_but_nothing_else(self, vectors, value):
    class Mine(o.Objective):
      def call(self, inputs):
        return value

    distiller = compiled(dense(), dense(), Mine())
    if value is None or isinstance(value, tuple):
      with pytest.raises(TypeError, match="`call` of objective 'mine' returned a .*: return float32"):
        distiller.test_on_batch(*vectors)
    else:
      assert distiller.test_on_batch(*vectors, return_dict=True)["mine"] == 0.5


class TestSaving:
  @pytest.mark.parametrize("what", ["fit", "evaluate", "quantized"])
  def test_works_immediately_after(self, what, tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.uniform(size=(8, 8, 8, 3)).astype(np.float32), rng.integers(0, 4, 8)
    student = cnn(4, "student")
    if what == "quantized":
      student = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(4, 3), layers.Flatten(), layers.Dense(4)])
      student = quantization.quantize(student, "w8a8", calibration_data=x)
    distiller = compiled(cnn(8, "teacher"), student, o.SoftTargets(4.0))
    if what == "evaluate":
      distiller.evaluate(x, y, verbose=0)
    else:
      # After the second of three steps.
      checkpoint = keras.callbacks.ModelCheckpoint(str(tmp_path / "checkpoint"), save_freq=2)
      distiller.fit(x, y, batch_size=3, verbose=0, callbacks=[checkpoint])
      assert (tmp_path / "checkpoint").exists()
    distiller.export(tmp_path / "exported")
    exported = tf.saved_model.load(str(tmp_path / "exported"))  # Its variables live as long as it does.
    served = exported.serve(x)
    np.testing.assert_allclose(served, distiller.predict(x, verbose=0), atol=1e-5)
    distiller.save(tmp_path / "saved")
    if what != "quantized":
      loaded = keras.models.load_model(tmp_path / "saved")
      loaded.teacher, loaded.run_eagerly = distiller.teacher, True
      np.testing.assert_allclose(loaded.predict(x, verbose=0), served, atol=1e-5)
      assert np.isfinite(loaded.fit(x, y, verbose=0).history["loss"]).all()

  def test_of_a_subclassed_student_needs_one_step(self, vectors, tmp_path):
    class Student(keras.Model):
      def __init__(self):
        super().__init__()
        self.last = layers.Dense(4)

      def call(self, inputs):
        return self.last(inputs)

    distiller = compiled(dense(), Student(), o.SoftTargets(4.0))
    distiller.fit(*vectors, verbose=0)
    distiller.export(tmp_path / "exported")
    exported = tf.saved_model.load(str(tmp_path / "exported"))
    np.testing.assert_allclose(exported.serve(vectors[0]), distiller.predict(vectors[0], verbose=0), atol=1e-6)


def test_the_frozen_classifier_of_a_joined_student_stays_frozen():
  rng = np.random.default_rng(0)
  x, y = rng.uniform(size=(8, 8, 8, 3)).astype(np.float32), rng.integers(0, 4, 8)
  inputs = keras.Input((8, 8, 3))
  hidden = layers.Conv2D(6, 3, padding="same", name="last")(inputs)
  hidden = layers.BatchNormalization(name="bn")(layers.GlobalAveragePooling2D()(hidden))
  teacher = keras.Model(inputs, layers.Dense(4, name="head")(hidden))
  student = o.simkd_student(teacher, cnn(4, "student"), "last", "relu1")
  before = {name: student.get_layer(name).get_weights() for name in ("teacher_bn", "teacher_head")}
  distiller = compiled(teacher, student, o.SimKD("last"), "adam")
  distiller.fit(x, y, epochs=2, verbose=0)
  for name, weights in before.items():
    for old, new in zip(weights, student.get_layer(name).get_weights(), strict=True):
      np.testing.assert_array_equal(old, new)
