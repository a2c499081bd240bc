"""Several objectives at once: forward passes, schedules, labels, stages, and precomputed teachers."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import tfkd
from tests.distiller.small import SPARSE, compiled, dense
from tests.losses import references
from tests.objectives.rows import cnn
from tfkd import objectives as o
from tfkd import quantization
from tfkd.teachers import Precomputed

layers = keras.layers


@pytest.fixture
def pictures():
  rng = np.random.default_rng(0)
  return rng.uniform(size=(16, 8, 8, 3)).astype(np.float32), rng.integers(0, 4, 16)


class _Counting(layers.Layer):
  """Passes its input on, and counts how often it ran."""

  calls = 0

  def call(self, inputs):
    type(self).calls += 1
    return inputs


def _counted(name, width):
  counter = type(f"Counting{name}", (_Counting,), {"calls": 0})
  model = cnn(width, name)
  return keras.Model(model.inputs, counter(name="counter")(model.output), name=name), counter


FIVE_OBJECTIVES = (
  lambda: o.SoftTargets(4.0),
  lambda: o.Hint(["relu0", "relu1"], ["relu0", "relu1"], connector="conv1x1"),
  lambda: o.AttentionTransfer(["relu0", "pool0"], ["relu0", "pool0"]),
  lambda: o.SimilarityPreserving("relu1", "relu1"),
  lambda: o.RKDDistance("embedding", "embedding"),
)


def test_five_objectives_on_four_layers_cost_one_pass_of_each_model(pictures):
  teacher, of_teacher = _counted("teacher", 8)
  student, of_student = _counted("student", 4)
  distiller = compiled(teacher, student, [make() for make in FIVE_OBJECTIVES], compile_options={"run_eagerly": True})
  of_teacher.calls = of_student.calls = 0  # Building the models called them.
  distiller.train_on_batch(*pictures)
  assert (of_teacher.calls, of_student.calls) == (1, 1)
  distiller.test_on_batch(*pictures)
  assert (of_teacher.calls, of_student.calls) == (2, 2)


def test_tapping_moves_batch_normalisation_and_ranges_as_plain_training_does(pictures):
  moved = []
  for objectives in ([], [make() for make in FIVE_OBJECTIVES]):
    keras.utils.set_random_seed(0)
    student = quantization.quantize(cnn(4, "student"), "w8a8", calibration_data=pictures[0])
    options = {"run_eagerly": True}
    distiller = compiled(cnn(8, "teacher"), student, objectives, keras.optimizers.SGD(0.0), options)
    distiller.train_on_batch(*pictures)
    moved.append(student.get_weights())
  for plain, tapped in zip(*moved, strict=True):
    np.testing.assert_allclose(plain, tapped, rtol=1e-6)


@pytest.mark.parametrize("eagerly", [False, True])
def test_regularizers_count_once_a_step_when_layers_are_tapped(vectors, eagerly):
  x, y = vectors
  losses = []
  for objectives in ([], [o.Hint("hidden", "hidden", weight=0.0)]):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,))
    hidden = layers.Dense(5, activity_regularizer="l2", kernel_regularizer="l2", name="hidden")(inputs)
    student = keras.Model(inputs, layers.Dense(4)(hidden))
    distiller = compiled(student, student, objectives, compile_options={"run_eagerly": eagerly})
    steps = [distiller.train_on_batch(x, y, return_dict=True)["loss"] for _ in range(3)]
    losses.append([*steps, *distiller.evaluate(x, y, batch_size=8, verbose=0)[:1]])
  np.testing.assert_allclose(*losses, rtol=1e-5)


def test_the_total_is_the_weighted_sum_of_features_relations_and_labels(pictures):
  x, y = pictures
  teacher, student = cnn(8, "teacher"), cnn(4, "student")
  objectives = [
    o.AttentionTransfer("relu1", "relu1", weight=5.0),
    o.RKDDistance("embedding", "embedding", weight=0.5),
    o.Decoupled(2.0, alpha=0.5, beta=2.0, weight=0.25),
  ]
  distiller = compiled(teacher, student, objectives, hard_loss_weight=0.0)
  logs = distiller.test_on_batch(x, y[:, None], return_dict=True)

  def read(model, layer):
    return keras.Model(model.input, model.get_layer(layer).output).predict(x, verbose=0)

  terms = [
    references.attention_transfer(read(teacher, "relu1"), read(student, "relu1")).mean(),
    references.rkd_distance(read(teacher, "embedding"), read(student, "embedding")),
    references.decoupled(read(teacher, "logits"), read(student, "logits"), y, 2.0, 0.5, 2.0).mean(),
  ]
  np.testing.assert_allclose([logs["attention_transfer"], logs["rkd_distance"], logs["decoupled"]], terms, rtol=1e-4)
  np.testing.assert_allclose(logs["loss"], np.dot([5.0, 0.5, 0.25], terms), rtol=1e-4)


def test_objectives_receive_training_and_the_step(pictures):
  class Receiving(o.Objective):
    def inputs(self, batch):
      return *super().inputs(batch), batch.step

    def call(self, inputs, training=None):
      # Python's True and False, known when the step is traced.
      return tf.fill([16], (100.0 if training else 0.0) + tf.cast(inputs[2], tf.float32))

  distiller = compiled(cnn(8, "teacher"), cnn(4, "student"), [Receiving()])
  values = []
  for method in (distiller.train_on_batch, distiller.train_on_batch, distiller.test_on_batch):
    distiller.reset_metrics()
    values.append(method(*pictures, return_dict=True)["receiving"])
  assert values == [100.0, 101.0, 2.0]


class TestScheduledWeights:
  @pytest.mark.parametrize(
    "weight",
    [keras.optimizers.schedules.PolynomialDecay(0.0, 4, 2.0), lambda step: 2.0 * tf.minimum(step / 4, 1)],
    ids=["schedule", "function"],
  )
  def test_follow_the_optimizers_steps(self, vectors, weight):
    x, y = vectors
    distiller = compiled(dense(), dense(), [o.SoftTargets(2.0, weight=weight)], hard_loss_weight=0.0)
    shares = []
    for _ in range(6):
      logs = distiller.train_on_batch(x, y, return_dict=True)
      shares.append(logs["loss"] / logs["soft_targets"])
      distiller.reset_metrics()
    np.testing.assert_allclose(shares, [0, 0.5, 1, 1.5, 2, 2], atol=1e-6)

  def test_are_saved_with_the_distiller(self, vectors, tmp_path):
    x, y = vectors
    weight = keras.optimizers.schedules.PolynomialDecay(0.0, 4, 2.0)
    distiller = compiled(dense(), dense(), [o.SoftTargets(2.0, weight=weight)])
    distiller.train_on_batch(x, y)
    distiller.save(tmp_path / "distiller.keras")
    loaded = keras.models.load_model(tmp_path / "distiller.keras")
    assert float(loaded.objectives[0].weight_at(2)) == 1.0


class TestLabels:
  def test_may_be_indices_columns_or_one_hot_rows(self, vectors):
    x, y = vectors
    losses = []
    for labels in (y, y[:, None], np.eye(4, dtype=np.float32)[y]):
      keras.utils.set_random_seed(0)
      distiller = compiled(
        dense(), dense(), [o.Decoupled()], hard_loss_weight=0.0, compile_options={"loss": None, "metrics": None}
      )
      losses.append(distiller.test_on_batch(x, labels))
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-6)
    np.testing.assert_allclose(losses[0], losses[2], rtol=1e-6)

  def test_out_of_range_raise_in_the_step(self, vectors):
    x, y = vectors
    distiller = compiled(
      dense(), dense(), [o.Decoupled()], hard_loss_weight=0.0, compile_options={"loss": None, "metrics": None}
    )
    with pytest.raises(tf.errors.InvalidArgumentError, match="labels must be in 0.."):
      distiller.train_on_batch(x, y + 1)

  def test_missing_raise_with_the_name_of_the_objective(self, vectors):
    distiller = compiled(dense(), dense(), [o.Decoupled()], hard_loss_weight=0.0)
    with pytest.raises(ValueError, match="objective 'decoupled' reads the labels, and the data has none"):
      distiller.fit(vectors[0], verbose=0)


def test_fitnets_two_stages_train_the_hint_first_and_then_soft_targets(pictures):
  x, y = pictures
  teacher, student = cnn(8, "teacher"), cnn(4, "student")
  after_hint = student.get_layer("logits").get_weights()[0]
  hint = o.Hint("relu1", "relu1", connector="conv1x1")
  first = compiled(teacher, student, [hint], keras.optimizers.Adam(0.01), hard_loss_weight=0.0)
  losses = first.fit(x, y, epochs=5, verbose=0).history["hint"]
  assert losses[-1] < losses[0]
  np.testing.assert_array_equal(after_hint, student.get_layer("logits").get_weights()[0])
  second = compiled(teacher, student, [o.SoftTargets(4.0)], keras.optimizers.Adam(0.01))
  losses = second.fit(x, y, epochs=3, verbose=0).history["loss"]
  assert losses[-1] < losses[0]


def test_a_quantized_student_learns_from_its_float_self_without_labels(pictures):
  x, y = pictures
  original = cnn(4, "student")
  original.compile(keras.optimizers.Adam(0.01), SPARSE)
  original.fit(x, y, epochs=60, verbose=0)  # Until the moving averages are those of this batch.
  student = quantization.quantize(original, "w2a8", calibration_data=x)
  objectives = [o.SoftTargets(1.0)]
  distiller = compiled(original, student, objectives, keras.optimizers.Adam(1e-3), hard_loss_weight=0.0)
  before = distiller.evaluate(x, verbose=0, return_dict=True)["soft_targets"]
  distiller.fit(x, epochs=30, verbose=0)
  assert distiller.evaluate(x, verbose=0, return_dict=True)["soft_targets"] < before / 2


class TestPrecomputedFeatures:
  def test_give_the_same_step_as_the_teacher(self, pictures):
    x, y = pictures
    teacher = cnn(8, "teacher")
    logits, features = tfkd.teachers.Frozen(teacher)(x, ["relu0", "relu1"])
    trained, connector = [], None
    for online in (True, False):
      keras.utils.set_random_seed(0)
      student = cnn(4, "student")
      objective = o.Hint(["relu0", "relu1"], ["relu0", "relu1"], connector="conv1x1")
      distiller = compiled(teacher if online else Precomputed(), student, [objective, o.SoftTargets(2.0)])
      inputs = x if online else (x, (logits, features))
      data = tf.data.Dataset.from_tensor_slices((inputs, y)).batch(16)
      if not online:
        distiller.test_on_batch(*next(iter(data)))  # Now the shapes are known.
        objective.set_weights(connector)
      connector = objective.get_weights()
      distiller.fit(data, epochs=2, verbose=0)
      trained.append(student.get_weights())
    for a, b in zip(*trained, strict=True):
      np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)

  def test_without_a_layer_raise_with_its_name(self, pictures):
    x, y = pictures
    teacher = cnn(8, "teacher")
    distiller = compiled(Precomputed(), cnn(4, "student"), [o.AttentionTransfer("relu1", "relu1")])
    data = tf.data.Dataset.from_tensor_slices(((x, teacher.predict(x, verbose=0)), y)).batch(16)
    with pytest.raises(ValueError, match="no teacher features of relu1"):
      distiller.fit(data, verbose=0)


def test_feature_objectives_accept_a_teacher_with_more_classes(vectors):
  # Feature objectives do not read the teacher's classes.
  x, y = vectors
  inputs = keras.Input((6,))
  teacher = keras.Model(inputs, layers.Dense(9)(layers.Dense(5, name="hidden")(inputs)))
  student = keras.Model(inputs, layers.Dense(4)(layers.Dense(5, name="hidden")(inputs)))
  distiller = tfkd.Distiller(teacher, student, [o.Hint("hidden", "hidden")])
  distiller.compile("sgd", SPARSE)
  assert np.isfinite(distiller.train_on_batch(x, y, return_dict=True)["loss"])
