"""The contracts of the Distiller on one device, against float64 numpy."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import tfkd
from tests.losses import references
from tfkd.objectives import SoftTargets
from tfkd.teachers import Precomputed

layers = keras.layers
SPARSE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def _dense(classes=4, hidden=8, **kwargs):
  return keras.Sequential(
    [keras.Input((6,)), layers.Dense(hidden, "relu"), layers.Dense(classes, name="logits", **kwargs)], name="dense"
  )


def _with_batch_norm(dtype=None):
  return keras.Sequential(
    [
      keras.Input((6,)),
      layers.Dense(8, name="hidden"),
      layers.BatchNormalization(momentum=0.9, name="bn"),
      layers.Dropout(0.5),
      layers.Dense(4, dtype=dtype),
    ]
  )


def _compiled(teacher, student, objectives, optimizer=None, compile_options=None, **kwargs):
  distiller = tfkd.Distiller(teacher, student, objectives, **kwargs)
  options = {"loss": SPARSE, "metrics": ["accuracy"], **(compile_options or {})}
  distiller.compile(optimizer or keras.optimizers.SGD(0.1), **options)
  return distiller


def _hard(logits, labels, weights=None):
  one_hot = np.eye(logits.shape[1])[labels]
  losses = references.tempered_cross_entropy(one_hot, logits, 1.0)
  return np.mean(losses if weights is None else losses * weights)


class TestTheTotalLoss:
  def test_is_the_weighted_sum_of_hard_and_soft_terms(self, vectors):
    x, y = vectors
    teacher, student = _dense(), _dense()
    t, s = teacher.predict(x, verbose=0), student.predict(x, verbose=0)
    objectives = [SoftTargets(5.0, weight=0.7), SoftTargets(2.0, weight=0.2, form="kl", name="kl")]
    distiller = _compiled(teacher, student, objectives, hard_loss_weight=0.3)
    logs = distiller.train_on_batch(x, y, return_dict=True)
    hard = _hard(s, y)
    soft = 25 * references.soft_target_cross_entropy(t, s, 5.0).mean()
    kl = 4 * references.soft_target_kl(t, s, 2.0).mean()
    np.testing.assert_allclose(logs["hard_loss"], hard, rtol=1e-5)
    np.testing.assert_allclose(logs["soft_targets"], soft, rtol=1e-5)
    np.testing.assert_allclose(logs["kl"], kl, rtol=1e-4)
    np.testing.assert_allclose(logs["loss"], 0.3 * hard + 0.7 * soft + 0.2 * kl, rtol=1e-5)
    np.testing.assert_allclose(logs["agreement"], np.mean(t.argmax(1) == s.argmax(1)), rtol=1e-6)
    np.testing.assert_allclose(logs["accuracy"], np.mean(s.argmax(1) == y), rtol=1e-6)

  @pytest.mark.parametrize("temperature", [1.0, 5.0, 100.0])
  def test_steps_along_the_closed_form_gradient(self, vectors, temperature):
    x, y = vectors
    teacher = _dense()
    student = keras.Sequential([keras.Input((6,)), layers.Dense(4)])
    kernel, bias = student.get_weights()
    t = np.float64(teacher.predict(x, verbose=0))
    s = np.float64(x) @ kernel + bias
    distiller = _compiled(teacher, student, [SoftTargets(temperature, weight=0.5)], hard_loss_weight=0.25)
    distiller.train_on_batch(x, y)

    def softmax(z):
      e = np.exp(z - z.max(axis=1, keepdims=True))
      return e / e.sum(axis=1, keepdims=True)

    error = 0.25 * (softmax(s) - np.eye(4)[y]) + 0.5 * temperature * (
      softmax(s / temperature) - softmax(t / temperature)
    )
    np.testing.assert_allclose(student.get_weights()[0], kernel - 0.1 * x.T @ error / len(x), rtol=1e-4, atol=2e-6)
    np.testing.assert_allclose(student.get_weights()[1], bias - 0.1 * error.mean(axis=0), rtol=1e-4, atol=2e-6)

  def test_counts_regularizers_and_added_losses(self, vectors):
    x, y = vectors
    student = _dense(kernel_regularizer=keras.regularizers.L2(100.0))
    student.add_loss(lambda: tf.constant(1000.0))
    s = student.predict(x, verbose=0)
    penalty = 100 * np.sum(np.square(student.get_layer("logits").get_weights()[0])) + 1000
    distiller = _compiled(_dense(), student, [SoftTargets(2.0, weight=0.0)])
    np.testing.assert_allclose(
      distiller.evaluate(x, y, verbose=0, return_dict=True)["loss"], _hard(s, y) + penalty, rtol=1e-5
    )
    before = student.get_layer("logits").get_weights()[0]
    distiller.optimizer = keras.optimizers.SGD(1e-3)
    logs = distiller.train_on_batch(x, y, return_dict=True)
    np.testing.assert_allclose(logs["loss"], _hard(s, y) + penalty, rtol=1e-5)
    after = student.get_layer("logits").get_weights()[0]
    assert np.linalg.norm(after) < 0.9 * np.linalg.norm(before)

  def test_averages_an_epoch_over_examples_with_an_uneven_last_batch(self, vectors):
    x, y = vectors
    teacher, student = _dense(), _dense()
    t, s = teacher.predict(x, verbose=0), student.predict(x, verbose=0)
    logs = _compiled(teacher, student, [SoftTargets(3.0)]).evaluate(x, y, batch_size=10, verbose=0, return_dict=True)
    np.testing.assert_allclose(
      logs["soft_targets"], 9 * references.soft_target_cross_entropy(t, s, 3.0).mean(), rtol=1e-5
    )
    np.testing.assert_allclose(logs["hard_loss"], _hard(s, y), rtol=1e-5)

  def test_of_labels_as_source_needs_no_teacher(self, vectors):
    x, y = vectors
    student = _dense()
    s = student.predict(x, verbose=0)
    distiller = _compiled(None, student, [SoftTargets(5.0, source="labels", weight=0.5)])
    logs = distiller.train_on_batch(x, y, return_dict=True)
    soft = 25 * references.tempered_cross_entropy(np.eye(4)[y], s, 5.0).mean()
    np.testing.assert_allclose(logs["loss"], _hard(s, y) + 0.5 * soft, rtol=1e-5)

  def test_is_finite_with_logits_of_magnitude_1e4(self, vectors):
    x, y = vectors
    student = _dense()
    distiller = _compiled(
      lambda inputs: 1e4 * inputs[:, :4], student, [SoftTargets(1.0), SoftTargets(1.0, form="kl", name="kl")]
    )
    logs = distiller.fit(x * 1e4, y, epochs=2, verbose=0).history
    assert np.isfinite(list(logs.values())).all() and np.isfinite(student.get_weights()[0]).all()


class TestSampleWeights:
  def test_reach_every_term(self, vectors):
    x, y = vectors
    weights = np.linspace(0, 2, len(x)).astype(np.float32)
    teacher, student = _dense(), _dense()
    t, s = teacher.predict(x, verbose=0), student.predict(x, verbose=0)
    distiller = _compiled(teacher, student, [SoftTargets(3.0)])
    logs = distiller.train_on_batch(x, y, sample_weight=weights, return_dict=True)
    soft = np.mean(9 * references.soft_target_cross_entropy(t, s, 3.0) * weights)
    np.testing.assert_allclose(logs["soft_targets"], soft, rtol=1e-5)
    np.testing.assert_allclose(logs["loss"], _hard(s, y, weights) + soft, rtol=1e-5)

  def test_of_zero_take_no_step(self, vectors):
    x, y = vectors
    student = _dense()
    before = student.get_weights()
    _compiled(_dense(), student, [SoftTargets(3.0)]).train_on_batch(x, y, sample_weight=np.zeros(len(x)))
    for old, new in zip(before, student.get_weights(), strict=True):
      np.testing.assert_array_equal(old, new)

  def test_class_weight_equals_the_same_sample_weight(self, vectors):
    x, y = vectors
    by_class = np.array([3.0, 0.0, 1.0, 0.5])
    teacher, start = _dense(), _dense()
    trained = []
    for weights in ({"class_weight": dict(enumerate(by_class))}, {"sample_weight": by_class[y]}, {}):
      student = keras.models.clone_model(start)
      student.set_weights(start.get_weights())
      _compiled(teacher, student, [SoftTargets(3.0)]).fit(x, y, batch_size=24, verbose=0, **weights)
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
    distiller = _compiled(teacher, Student(), objectives, compile_options={"run_eagerly": True})
    distiller.train_on_batch(x, y)
    assert teacher.calls == 1 and calls == [True]
    distiller.test_on_batch(x, y)
    assert teacher.calls == 2 and calls == [True, False]
    distiller.predict(x, verbose=0)
    assert teacher.calls == 2

  def test_moves_batch_normalisation_once(self, vectors):
    x, y = vectors
    student = _with_batch_norm()
    hidden = keras.Model(student.inputs, student.get_layer("hidden").output).predict(x, verbose=0)
    objectives = [SoftTargets(2.0), SoftTargets(3.0, name="other")]
    _compiled(_dense(), student, objectives, keras.optimizers.SGD(0.0)).train_on_batch(x, y)
    np.testing.assert_allclose(student.get_layer("bn").moving_mean, 0.1 * hidden.mean(axis=0), rtol=1e-4, atol=1e-7)

  def test_evaluate_and_predict_change_no_variable(self, vectors):
    x, y = vectors
    distiller = _compiled(_with_batch_norm(), _with_batch_norm(), [SoftTargets(2.0)])
    distiller.train_on_batch(x, y)
    before = [v.numpy() for v in distiller.variables]
    first = distiller.evaluate(x, y, verbose=0)
    distiller.predict(x, verbose=0)
    metric_variables = {id(v) for m in distiller.metrics for v in m.variables}
    for variable, old in zip(distiller.variables, before, strict=True):
      if id(variable) not in metric_variables:
        np.testing.assert_array_equal(variable.numpy(), old)
    assert distiller.evaluate(x, y, verbose=0) == first


class TestTheTeacher:
  @pytest.mark.parametrize("trainable", [True, False])
  def test_is_bit_identical_after_fit_and_keeps_its_flag(self, vectors, trainable):
    x, y = vectors
    teacher = _with_batch_norm()
    teacher.trainable = trainable
    distiller = _compiled(teacher, _dense(), [SoftTargets(2.0)])
    distiller.trainable = False
    distiller.trainable = True
    before = teacher.get_weights()
    distiller.fit(x, y, epochs=2, verbose=0)
    for old, new in zip(before, teacher.get_weights(), strict=True):
      np.testing.assert_array_equal(old, new)
    assert teacher.trainable is trainable

  def test_answers_in_inference_mode(self, vectors):
    x, _ = vectors
    teacher = _with_batch_norm()
    np.testing.assert_allclose(tfkd.teachers.Frozen(teacher)(x), teacher(x, training=False))
    assert np.abs(teacher(x, training=True) - teacher(x, training=False)).max() > 1e-3

  def test_passes_no_gradient_to_whoever_asks(self, vectors):
    teacher = _dense()
    with tf.GradientTape() as tape:
      outputs = tfkd.teachers.Frozen(teacher)(vectors[0])
    assert tape.gradient(outputs, teacher.trainable_variables) == [None] * 4

  def test_is_in_no_variable_list_and_no_file(self, vectors, tmp_path):
    x, y = vectors
    teacher, student = _dense(hidden=20_000), _dense()
    distiller = _compiled(teacher, student, [SoftTargets(2.0)], "adam")
    distiller.fit(x, y, verbose=0)
    teacher_ids = {id(v) for v in teacher.variables}
    assert not teacher_ids & {id(v) for v in distiller.variables}
    assert len(distiller.trainable_variables) == len(student.trainable_variables)
    for name in ("model.keras", "model.weights.h5"):
      (distiller.save if name.endswith(".keras") else distiller.save_weights)(tmp_path / name)
      assert (tmp_path / name).stat().st_size < 100_000
    tf.train.Checkpoint(model=distiller).write(str(tmp_path / "checkpoint"))
    shapes = dict(tf.train.list_variables(str(tmp_path / "checkpoint"))).values()
    assert not any(20_000 in shape for shape in shapes)

  def test_may_be_a_keras_3_model(self, vectors):
    import keras as keras3

    x, y = vectors
    teacher = keras3.Sequential([keras3.Input((6,)), keras3.layers.Dense(4), keras3.layers.Dropout(0.5)])
    t = np.asarray(teacher(x, training=False))
    student = _dense()
    s = student.predict(x, verbose=0)
    logs = _compiled(teacher, student, [SoftTargets(2.0)]).train_on_batch(x, y, return_dict=True)
    np.testing.assert_allclose(
      logs["soft_targets"], 4 * references.soft_target_cross_entropy(t, s, 2.0).mean(), rtol=1e-5
    )

  def test_precomputed_gives_the_same_step_as_online(self, vectors):
    x, y = vectors
    teacher, online = _dense(), _dense()
    offline = keras.models.clone_model(online)
    offline.set_weights(online.get_weights())
    t = teacher.predict(x, verbose=0)
    a = _compiled(teacher, online, [SoftTargets(3.0)])
    b = _compiled(Precomputed(), offline, [SoftTargets(3.0)])
    data = tf.data.Dataset.from_tensor_slices(((x, t), y)).batch(8)
    a.fit(x, y, batch_size=8, shuffle=False, epochs=3, verbose=0)
    b.fit(data, epochs=3, verbose=0)
    for u, v in zip(online.get_weights(), offline.get_weights(), strict=True):
      np.testing.assert_allclose(u, v, rtol=1e-5, atol=1e-6)

  def test_precomputed_refuses_plain_batches(self, vectors):
    x, y = vectors
    with pytest.raises(ValueError, match="expects batches of"):
      _compiled(Precomputed(), _dense(), [SoftTargets(3.0)]).train_on_batch(x, y)


class TestKerasHabits:
  @pytest.mark.parametrize(
    "options", [{"steps_per_execution": 3}, {"run_eagerly": True}, {"jit_compile": True}], ids=lambda o: next(iter(o))
  )
  def test_compile_options_take_the_same_steps(self, vectors, options):
    x, y = vectors
    teacher, plain = _dense(), _dense()
    other = keras.models.clone_model(plain)
    other.set_weights(plain.get_weights())
    fit = {"batch_size": 4, "shuffle": False, "epochs": 2, "verbose": 0}
    _compiled(teacher, plain, [SoftTargets(3.0)]).fit(x, y, **fit)
    _compiled(teacher, other, [SoftTargets(3.0)], compile_options=options).fit(x, y, **fit)
    for a, b in zip(plain.get_weights(), other.get_weights(), strict=True):
      np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)

  def test_saved_distiller_goes_on_as_if_never_saved(self, vectors, tmp_path):
    x, y = vectors
    teacher = _dense()
    distiller = _compiled(teacher, _dense(), [SoftTargets(3.0, weight=0.4)], "adam", hard_loss_weight=0.2)
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
    teacher, start = _dense(), _dense()

    def run(epochs, backup):
      student = keras.models.clone_model(start)
      student.set_weights(start.get_weights())
      distiller = _compiled(teacher, student, [SoftTargets(3.0)], "adam")
      callbacks = [keras.callbacks.BackupAndRestore(backup, delete_checkpoint=False)] if backup else []
      distiller.fit(x, y, batch_size=8, shuffle=False, epochs=epochs, verbose=0, callbacks=callbacks)
      return student.get_weights()

    run(2, tmp_path / "backup")
    for a, b in zip(run(4, tmp_path / "backup"), run(4, None), strict=True):
      np.testing.assert_array_equal(a, b)

  def test_summary_needs_no_prior_call(self):
    lines = []
    tfkd.Distiller(_dense(), _dense(), [SoftTargets()]).summary(print_fn=lambda line, **_: lines.append(line))
    assert any("dense" in line for line in lines)

  @pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
  def test_mixed_precision_students_train(self, vectors, policy):
    x, y = vectors
    keras.mixed_precision.set_global_policy(policy)
    try:
      distiller = _compiled(_dense(), _with_batch_norm(), [SoftTargets(100.0)], "adam")
      logs = distiller.fit(x, y, epochs=3, verbose=0).history
    finally:
      keras.mixed_precision.set_global_policy("float32")
    assert np.isfinite(list(logs.values())).all()
    assert {v.dtype for v in distiller.student.trainable_variables} == {tf.float32}
    assert ("LossScale" in type(distiller.optimizer).__name__) == (policy == "mixed_float16")

  def test_unlabelled_data_trains_on_the_teacher_alone(self, vectors):
    x, _ = vectors
    distiller = _compiled(_dense(), _dense(), [SoftTargets(2.0)], hard_loss_weight=0.0)
    losses = distiller.fit(x, epochs=20, verbose=0).history["loss"]
    assert losses[-1] < losses[0]

  def test_no_loss_is_needed_where_its_weight_is_zero(self, vectors):
    x, y = vectors
    distiller = _compiled(_dense(), _dense(), [SoftTargets(2.0)], hard_loss_weight=0.0, compile_options={"loss": None})
    assert distiller.train_on_batch(x, y, return_dict=True)["hard_loss"] == 0

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
    a = 4 * references.soft_target_cross_entropy(t[keys[0]], s[keys[0]], 2.0).mean()
    b = 9 * references.soft_target_cross_entropy(t[keys[1]], s[keys[1]], 3.0).mean()
    hard = _hard(s[keys[0]], y) + _hard(s[keys[1]], y % 2)
    np.testing.assert_allclose([logs["a"], logs["b"], logs["hard_loss"]], [a, b, hard], rtol=1e-5)
    np.testing.assert_allclose(logs["loss"], hard + a + 0.5 * b, rtol=1e-5)


class TestErrors:
  def test_different_class_counts_name_both_models(self):
    with pytest.raises(ValueError, match=r"teacher logits have 5 classes \(dense\), student logits 4 \(dense\)"):
      tfkd.Distiller(_dense(5), _dense(4), [SoftTargets()])

  def test_different_class_counts_of_a_function_are_found_at_the_first_batch(self, vectors):
    x, y = vectors
    with pytest.raises(ValueError, match="student logits have 4 classes, teacher logits 6"):
      _compiled(lambda inputs: inputs, _dense(4), [SoftTargets()]).train_on_batch(x, y)

  def test_keras_3_students_are_refused(self):
    import keras as keras3

    with pytest.raises(TypeError, match="must be a tf_keras model; got keras"):
      tfkd.Distiller(_dense(), keras3.Sequential([keras3.layers.Dense(4)]), [SoftTargets()])

  def test_equal_names_are_refused(self):
    with pytest.raises(ValueError, match="two terms are called 'soft_targets'"):
      tfkd.Distiller(_dense(), _dense(), [SoftTargets(2.0), SoftTargets(4.0)])

  def test_a_missing_teacher_is_named(self, vectors):
    x, y = vectors
    with pytest.raises(ValueError, match="'soft_targets' reads the teacher"):
      _compiled(None, _dense(), [SoftTargets()]).train_on_batch(x, y)

  def test_other_objects_are_refused(self):
    with pytest.raises(TypeError, match="objectives must be"):
      tfkd.Distiller(_dense(), _dense(), [SPARSE])
    with pytest.raises(TypeError, match="teacher must be a model or a function"):
      tfkd.Distiller("resnet", _dense(), [SoftTargets()])

  @pytest.mark.parametrize("weight", [-0.1, float("nan")])
  def test_a_meaningless_hard_loss_weight_is_refused(self, weight):
    with pytest.raises(ValueError, match=f"hard_loss_weight must be a finite number >= 0; got {weight}"):
      tfkd.Distiller(_dense(), _dense(), hard_loss_weight=weight)

  def test_missing_labels_say_what_to_do(self, vectors):
    with pytest.raises(ValueError, match="the data has no labels: set it to 0"):
      _compiled(_dense(), _dense(), [SoftTargets()]).fit(vectors[0], verbose=0)

  def test_several_outputs_need_a_key(self, vectors):
    x, y = vectors
    inputs = keras.Input((6,))
    student = keras.Model(inputs, {"a": layers.Dense(4)(inputs), "b": layers.Dense(4)(inputs)})
    distiller = tfkd.Distiller(_dense(), student, [SoftTargets(2.0)])
    distiller.compile("sgd", loss={"a": SPARSE, "b": SPARSE})
    with pytest.raises(
      ValueError, match=r"student has several outputs, \['a', 'b'\]: objective 'soft_targets' got output=None"
    ):
      distiller.train_on_batch(x, {"a": y, "b": y})
