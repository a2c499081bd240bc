"""Behaviour that Keras users expect of a model: options, saving, mixed precision, outputs, errors."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import tfkd
from tests.distiller.small import SPARSE, compiled, cross_entropy, dense, with_batch_norm
from tests.losses import references
from tfkd.objectives import Hint, Objective, SoftTargets

layers = keras.layers


class TestKerasHabits:
  def test_compile_options_take_the_same_steps(self, vectors):
    x, y = vectors
    teacher, student = dense(), dense()
    start, trained = student.get_weights(), []
    for options in ({}, {"steps_per_execution": 3}, {"run_eagerly": True}, {"jit_compile": True}):
      student.set_weights(start)
      distiller = compiled(teacher, student, [SoftTargets(3.0)], compile_options=options)
      distiller.fit(x, y, batch_size=4, shuffle=False, epochs=2, verbose=0)
      trained.append(student.get_weights())
      for plain, other in zip(trained[0], trained[-1], strict=True):
        np.testing.assert_allclose(plain, other, rtol=1e-4, atol=1e-6, err_msg=str(options))

  def test_a_step_is_traced_once(self, vectors):
    x, y = vectors
    traces = []

    class Traced(tfkd.Distiller):
      def train_step(self, data):
        traces.append(data)
        return super().train_step(data)

    objectives = [SoftTargets(3.0), Hint("hidden", "hidden", connector="linear")]
    distiller = Traced(with_batch_norm(), with_batch_norm(), objectives)
    # By name, Keras makes a metric in the first step.
    distiller.compile("adam", SPARSE, [keras.metrics.SparseCategoricalAccuracy("accuracy")])
    distiller.fit(x, y, batch_size=8, epochs=2, verbose=0)
    assert len(traces) == 1

  @pytest.mark.parametrize("optimizer", [keras.optimizers.Adam(0.1), keras.optimizers.legacy.Adam(0.1)])
  def test_weights_made_in_the_first_call_are_trained(self, vectors, optimizer):
    class Late(Objective):
      def __init__(self):
        super().__init__()
        self.dense = layers.Dense(4)

      def call(self, inputs):
        teacher, student = inputs
        return tf.reduce_mean((teacher - self.dense(student)) ** 2, axis=1)

    x, y = vectors
    distiller = compiled(dense(), dense(), [Late()], optimizer)
    distiller.fit(x, y, batch_size=8, verbose=0)
    before = distiller.objectives[0].get_weights()
    distiller.fit(x, y, batch_size=8, verbose=0)
    assert all((a != b).any() for a, b in zip(before, distiller.objectives[0].get_weights(), strict=True))

  def test_a_saved_distiller_continues_as_if_never_saved(self, vectors, tmp_path):
    x, y = vectors
    teacher = dense()
    distiller = compiled(teacher, dense(), [SoftTargets(3.0, weight=0.4)], "adam", hard_loss_weight=0.2)
    fit = {"batch_size": 8, "shuffle": False, "epochs": 2, "verbose": 0}
    distiller.fit(x, y, **fit)
    distiller.save(tmp_path / "distiller.keras")
    loaded = keras.models.load_model(tmp_path / "distiller.keras")
    with pytest.raises(ValueError, match="set `distiller.teacher`"):
      loaded.fit(x, y, **fit)
    loaded.teacher = teacher
    assert loaded.hard_loss_weight == 0.2 and loaded.objectives[0].weight == 0.4
    assert loaded.evaluate(x, y, verbose=0) == distiller.evaluate(x, y, verbose=0)
    a = distiller.fit(x, y, **fit).history
    b = loaded.fit(x, y, **fit).history
    np.testing.assert_allclose(a["loss"], b["loss"], rtol=1e-6)
    for u, v in zip(distiller.student.get_weights(), loaded.student.get_weights(), strict=True):
      np.testing.assert_allclose(u, v, rtol=1e-5, atol=1e-7)

  def test_backup_and_restore_needs_no_prior_call(self, vectors, tmp_path):
    x, y = vectors
    teacher, start = dense(), dense()

    def run(epochs, backup):
      student = keras.models.clone_model(start)
      student.set_weights(start.get_weights())
      distiller = compiled(teacher, student, [SoftTargets(3.0)], "adam")
      callbacks = [keras.callbacks.BackupAndRestore(backup, delete_checkpoint=False)] if backup else []
      distiller.fit(x, y, batch_size=8, shuffle=False, epochs=epochs, verbose=0, callbacks=callbacks)
      return student.get_weights()

    run(2, tmp_path / "backup")
    for a, b in zip(run(4, tmp_path / "backup"), run(4, None), strict=True):
      np.testing.assert_array_equal(a, b)

  def test_summary_needs_no_prior_call(self):
    lines = []
    tfkd.Distiller(dense(), dense(), [SoftTargets()]).summary(print_fn=lambda line, **_: lines.append(line))
    assert any("dense" in line for line in lines)

  @pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
  def test_mixed_precision_students_train(self, vectors, policy):
    x, y = vectors
    keras.mixed_precision.set_global_policy(policy)
    try:
      distiller = compiled(dense(), with_batch_norm(), [SoftTargets(100.0)], "adam")
      logs = distiller.fit(x, y, epochs=3, verbose=0).history
    finally:
      keras.mixed_precision.set_global_policy("float32")
    assert np.isfinite(list(logs.values())).all()
    assert {v.dtype for v in distiller.student.trainable_variables} == {tf.float32}
    assert ("LossScale" in type(distiller.optimizer).__name__) == (policy == "mixed_float16")

  def test_unlabelled_data_trains_on_the_teacher_alone(self, vectors):
    x, _ = vectors
    distiller = compiled(dense(), dense(), [SoftTargets(2.0)], hard_loss_weight=0.0)
    logs = distiller.fit(x, epochs=20, verbose=0).history
    assert logs["loss"][-1] < logs["loss"][0]
    assert set(logs) == {"loss", "soft_targets", "agreement"}
    # Labels of the validation are measured, and leave nothing in the logs of the training.
    logs = distiller.fit(x, validation_data=vectors, epochs=2, verbose=0).history
    assert {"val_hard_loss", "val_accuracy"} < set(logs) and not {"hard_loss", "accuracy"} & set(logs)

  def test_no_loss_is_needed_if_its_weight_is_zero(self, vectors):
    x, y = vectors
    distiller = compiled(dense(), dense(), [SoftTargets(2.0)], hard_loss_weight=0.0, compile_options={"loss": None})
    assert distiller.train_on_batch(x, y, return_dict=True).keys() == {"loss", "soft_targets", "agreement", "accuracy"}

  @pytest.mark.parametrize("as_dict", [False, True])
  def test_several_outputs(self, vectors, as_dict):
    x, y = vectors

    def build():
      inputs = keras.Input((6,))
      heads = {"first": layers.Dense(4, name="first")(inputs), "second": layers.Dense(2, name="second")(inputs)}
      return keras.Model(inputs, heads if as_dict else list(heads.values()))

    teacher, student = build(), build()
    keys = ("first", "second") if as_dict else (0, 1)
    t, s = teacher.predict(x, verbose=0), student.predict(x, verbose=0)
    objectives = [SoftTargets(2.0, output=keys[0], name="a"), SoftTargets(3.0, output=keys[1], weight=0.5, name="b")]
    distiller = tfkd.Distiller(teacher, student, objectives)
    loss = {k: SPARSE for k in keys} if as_dict else [SPARSE, SPARSE]
    distiller.compile("sgd", loss=loss)
    labels = dict(zip(keys, (y, y % 2), strict=True)) if as_dict else [y, y % 2]
    logs = distiller.train_on_batch(x, labels, return_dict=True)
    a = 4 * references.soft_target_kl(t[keys[0]], s[keys[0]], 2.0).mean()
    b = 9 * references.soft_target_kl(t[keys[1]], s[keys[1]], 3.0).mean()
    hard = cross_entropy(s[keys[0]], y) + cross_entropy(s[keys[1]], y % 2)
    np.testing.assert_allclose([logs["a"], logs["b"], logs["hard_loss"]], [a, b, hard], rtol=1e-4)
    np.testing.assert_allclose(logs["loss"], hard + a + 0.5 * b, rtol=1e-5)


class TestErrors:
  def test_different_class_counts_name_the_objective(self):
    with pytest.raises(ValueError, match="'soft_targets' .* teacher logits have 5 classes, student logits 4: build"):
      tfkd.Distiller(dense(5), dense(4), [SoftTargets()])

  def test_different_class_counts_of_a_function_are_found_at_the_first_batch(self, vectors):
    x, y = vectors
    with pytest.raises(ValueError, match="teacher logits have 6 classes, student logits 4"):
      compiled(lambda inputs: inputs, dense(4), [SoftTargets()]).train_on_batch(x, y)

  def test_keras_3_students_that_cannot_be_converted_are_refused(self):
    import keras as keras3

    with pytest.raises(ValueError, match="is not built.*start it with keras.Input"):
      tfkd.Distiller(dense(), keras3.Sequential([keras3.layers.Dense(4)]), [SoftTargets()])
    with pytest.raises(TypeError, match="must be a tf_keras model; got keras"):
      tfkd.Distiller(dense(), keras3.layers.Dense(4), [SoftTargets()])

  def test_equal_names_are_refused(self):
    with pytest.raises(ValueError, match="two terms are called 'soft_targets'"):
      tfkd.Distiller(dense(), dense(), [SoftTargets(2.0), SoftTargets(4.0)])

  def test_a_missing_teacher_is_refused(self, vectors):
    x, y = vectors
    with pytest.raises(ValueError, match="'soft_targets' reads the teacher"):
      compiled(None, dense(), [SoftTargets()]).train_on_batch(x, y)

  def test_other_objects_are_refused(self):
    with pytest.raises(TypeError, match="objectives must be"):
      tfkd.Distiller(dense(), dense(), [SPARSE])
    with pytest.raises(TypeError, match="teacher must be a model or a function"):
      tfkd.Distiller("resnet", dense(), [SoftTargets()])

  @pytest.mark.parametrize("weight", [-0.1, float("nan")])
  def test_a_meaningless_hard_loss_weight_is_refused(self, weight):
    with pytest.raises(ValueError, match=f"hard_loss_weight must be a finite number >= 0; got {weight}"):
      tfkd.Distiller(dense(), dense(), hard_loss_weight=weight)

  def test_missing_labels_are_refused(self, vectors):
    with pytest.raises(ValueError, match="the data has no labels: set it to 0"):
      compiled(dense(), dense(), [SoftTargets()]).fit(vectors[0], verbose=0)

  def test_several_outputs_need_a_key(self, vectors):
    x, y = vectors
    inputs = keras.Input((6,))
    student = keras.Model(inputs, {"a": layers.Dense(4)(inputs), "b": layers.Dense(4)(inputs)})
    distiller = tfkd.Distiller(dense(), student, [SoftTargets(2.0)])
    distiller.compile("sgd", loss={"a": SPARSE, "b": SPARSE})
    with pytest.raises(
      ValueError, match=r"student has several outputs, \['a', 'b'\]: objective 'soft_targets' got output=None"
    ):
      distiller.train_on_batch(x, {"a": y, "b": y})
