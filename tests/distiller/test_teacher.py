"""The teacher: frozen, untracked, of any kind."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import tfkd
from tests.distiller.small import compiled, dense, with_batch_norm
from tests.losses import references
from tfkd.objectives import SoftTargets
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
