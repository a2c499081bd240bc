"""The teacher: frozen, untracked, of any kind."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import tfkd
from tests.distiller.small import compiled, dense, with_batch_norm
from tests.losses import references
from tfkd.features import ModelOutputs
from tfkd.objectives import Hint, SoftTargets
from tfkd.teachers import Precomputed


class TestTheTeacher:
  @pytest.mark.parametrize("trainable", [True, False])
  def test_is_bit_identical_after_fit_and_keeps_its_flag(self, vectors, trainable):
    x, y = vectors
    teacher = with_batch_norm()
    teacher.trainable = trainable
    distiller = compiled(teacher, dense(), [SoftTargets(2.0)])
    distiller.trainable = False
    distiller.trainable = True
    before = teacher.get_weights()
    distiller.fit(x, y, epochs=2, verbose=0)
    for old, new in zip(before, teacher.get_weights(), strict=True):
      np.testing.assert_array_equal(old, new)
    assert teacher.trainable is trainable

  def test_runs_in_inference_mode(self, vectors):
    x, _ = vectors
    teacher = with_batch_norm()
    np.testing.assert_allclose(tfkd.teachers.Frozen(teacher)(x).outputs, teacher(x, training=False))
    assert np.abs(teacher(x, training=True) - teacher(x, training=False)).max() > 1e-3

  def test_passes_no_gradient(self, vectors):
    teacher = dense()
    with tf.GradientTape() as tape:
      outputs = tfkd.teachers.Frozen(teacher)(vectors[0]).outputs
    assert tape.gradient(outputs, teacher.trainable_variables) == [None] * 4

  def test_is_in_no_variable_list_and_no_file(self, vectors, tmp_path):
    x, y = vectors
    teacher, student = dense(hidden=20_000), dense()
    distiller = compiled(teacher, student, [SoftTargets(2.0)], "adam")
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
    student = dense()
    s = student.predict(x, verbose=0)
    logs = compiled(teacher, student, [SoftTargets(2.0)]).train_on_batch(x, y, return_dict=True)
    np.testing.assert_allclose(logs["soft_targets"], 4 * references.soft_target_kl(t, s, 2.0).mean(), rtol=1e-4)

  def test_precomputed_gives_the_same_step_as_online(self, vectors):
    x, y = vectors
    teacher, online = dense(), dense()
    offline = keras.models.clone_model(online)
    offline.set_weights(online.get_weights())
    t = teacher.predict(x, verbose=0)
    a = compiled(teacher, online, [SoftTargets(3.0)])
    b = compiled(Precomputed(), offline, [SoftTargets(3.0)])
    data = tf.data.Dataset.from_tensor_slices(((x, t), y)).batch(8)
    a.fit(x, y, batch_size=8, shuffle=False, epochs=3, verbose=0)
    b.fit(data, epochs=3, verbose=0)
    for u, v in zip(online.get_weights(), offline.get_weights(), strict=True):
      np.testing.assert_allclose(u, v, rtol=1e-5, atol=1e-6)

  def test_precomputed_refuses_plain_batches(self, vectors):
    x, y = vectors
    with pytest.raises(ValueError, match="expects batches of"):
      compiled(Precomputed(), dense(), [SoftTargets(3.0)]).train_on_batch(x, y)


KERNEL = np.random.default_rng(1).normal(size=(6, 4)).astype(np.float32)


def _numpy_teacher(shapes=((None, 4), (None, 8)), outputs=lambda logits: logits):
  """A function that numpy computes, which gives logits and the feature "embedding"."""

  def teacher(x):
    logits, embedding = tf.numpy_function(lambda a: (a @ KERNEL, np.tile(a[:, :4], 2)), [x], (tf.float32, tf.float32))
    results = zip((logits, embedding), shapes, strict=True)
    logits, embedding = (result if shape is None else tf.ensure_shape(result, shape) for result, shape in results)
    return ModelOutputs(outputs(logits), {"embedding": embedding, "attention": tf.nn.softmax(x)})

  return teacher


def _with_hidden():
  return keras.Sequential(
    [keras.Input((6,)), keras.layers.Dense(8, name="hidden"), keras.layers.Dense(4, name="logits")]
  )


class TestFunctionsWithFeatures:
  @pytest.mark.parametrize("as_model", [False, True], ids=["function", "subclassed"])
  def test_serve_objectives_on_features(self, vectors, as_model):
    x, y = vectors
    teacher, student = _numpy_teacher(), _with_hidden()
    if as_model:

      class Subclassed(keras.Model):
        def call(self, inputs):
          return _numpy_teacher()(inputs)

      teacher = Subclassed()
    distiller = compiled(teacher, student, [SoftTargets(2.0), Hint("embedding", "hidden", weight=1.0)])
    assert distiller.objectives[1].built  # Before the first step.
    s, (_, features) = student.predict(x, verbose=0), tfkd.taps.Reader(student, ["hidden"])(x)
    logs = distiller.train_on_batch(x, y, return_dict=True)
    assert logs["soft_targets"] == pytest.approx(4 * references.soft_target_kl(x @ KERNEL, s, 2.0).mean(), rel=1e-4)
    expected = references.hint(np.tile(x[:, :4], 2), features["hidden"].numpy()).mean()
    assert logs["hint"] == pytest.approx(expected, rel=1e-4)

  def test_features_that_are_probabilities_stay_as_they_are(self, vectors):
    x, _ = vectors
    found = tf.function(lambda batch: tfkd.teachers.Frozen(_numpy_teacher())(batch))(x)
    np.testing.assert_allclose(tf.reduce_sum(found.features["attention"], -1), np.ones(len(x)), rtol=1e-5)

  def test_missing_features_and_outputs_are_refused_with_those_there_are(self, vectors):
    with pytest.raises(ValueError, match="gives no feature other, .* it gives embedding, attention: "):
      tfkd.Distiller(_numpy_teacher(), _with_hidden(), Hint("other", "hidden"))
    teacher = _numpy_teacher(outputs=lambda logits: {"a": logits, "b": logits})
    with pytest.raises(ValueError, match=r"teacher has several outputs, \['a', 'b'\]: .* got output='c'"):
      compiled(teacher, _with_hidden(), SoftTargets(output="c")).train_on_batch(*vectors)
    logs = compiled(teacher, _with_hidden(), SoftTargets(output="b")).train_on_batch(*vectors, return_dict=True)
    assert np.isfinite(logs["soft_targets"])

  def test_results_of_unknown_shape_are_refused_with_the_remedy(self, vectors):
    x, y = vectors
    with pytest.raises(ValueError, match=r"'embedding' <unknown> and .* return tf.ensure_shape"):
      tfkd.Distiller(_numpy_teacher(((None, 4), None)), _with_hidden(), Hint("embedding", "hidden"))
    with pytest.raises(
      ValueError, match=r"unknown static shape .* return tf.ensure_shape\(logits, \[None, classes\]\)"
    ):
      compiled(_numpy_teacher((None, (None, 8))), _with_hidden(), SoftTargets()).train_on_batch(x, y)

  def test_a_function_that_reads_other_types_than_the_student_is_read_in_the_first_step(self):
    def teacher(x):
      codes = tf.bitwise.bitwise_and(x, tf.constant(7, tf.uint8))  # Of integers alone.
      return ModelOutputs(tf.one_hot(codes[:, 0], 4), {"embedding": tf.cast(codes, tf.float32)})

    student = keras.Sequential([keras.Input((6,)), keras.layers.Dense(6, name="hidden"), keras.layers.Dense(4)])
    distiller = compiled(teacher, student, Hint("embedding", "hidden"))
    x = np.arange(48, dtype=np.uint8).reshape(8, 6)
    assert np.isfinite(distiller.train_on_batch(x, np.zeros(8, int), return_dict=True)["hint"])

  def test_a_pytorch_module_is_refused_with_the_remedy(self):
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match="PyTorch module Linear, .* tf.numpy_function .* tf.ensure_shape"):
      tfkd.Distiller(torch.nn.Linear(6, 4), dense(), SoftTargets())
