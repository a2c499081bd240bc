"""Logits are logits: teachers, students and hard losses that work with probabilities are converted or refused."""

import functools

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import tfkd
from tests.distiller.small import SPARSE, dense
from tfkd import objectives as o
from tfkd.features import ModelOutputs

layers = keras.layers
LOSSES = keras.losses


def _models():
  """Models with the same kernel [6, 4] that end in softmax, by the form of the softmax."""
  import keras as keras3

  inputs, inputs3 = keras.Input((6,)), keras3.Input((6,))
  logits = keras.Sequential([keras.Input((6,)), layers.Dense(4)])
  yield "layer", keras.Sequential([logits, layers.Softmax()])
  yield "activation", keras.Sequential([keras.Input((6,)), layers.Dense(4), layers.Activation("softmax")])
  yield "dense", keras.Sequential([keras.Input((6,)), layers.Dense(4, "softmax")])
  yield "nested", keras.Sequential([keras.Sequential([keras.Input((6,)), layers.Dense(4, "softmax")])])
  yield "operation", keras.Model(inputs, tf.nn.softmax(layers.Dense(4)(inputs)))
  yield "reshaped", keras.Model(inputs, layers.Reshape((4,))(layers.Dense(4, "softmax")(inputs)))
  yield "cast", keras.Model(inputs, tf.identity(tf.cast(layers.Dense(4, "softmax")(inputs), tf.float32)))
  yield "keras 3", keras3.Sequential([inputs3, keras3.layers.Dense(4, activation="softmax")])
  nested3 = keras3.Sequential([keras3.Input((6,)), keras3.layers.Dense(4), keras3.layers.Softmax()])
  yield "keras 3 nested", keras3.Sequential([inputs3, nested3])

  class Subclassed(keras.Model):
    def __init__(self):
      super().__init__()
      self.last, self.softmax = layers.Dense(4), layers.Softmax()

    def call(self, inputs):
      return self.softmax(self.last(inputs))

  model = Subclassed()
  model(np.zeros((1, 6), np.float32))
  yield "subclassed", model


def test_a_teacher_that_ends_in_softmax_gives_the_logits_before_it(vectors, tmp_path):
  x, _ = vectors
  kernel = 30 * np.random.default_rng(1).normal(size=(6, 4)).astype(np.float32)
  models = dict(_models())
  models["dense"].save(tmp_path / "saved.keras")
  models["loaded"] = keras.models.load_model(tmp_path / "saved.keras")
  for name, model in models.items():
    model(x)
    model.set_weights([kernel, np.zeros(4)])
    before = np.asarray(model(x))
    for call in (tfkd.teachers.Frozen(model), tf.function(tfkd.teachers.Frozen(model))):
      found = call(tf.constant(x)).outputs.numpy()
      if name in ("reshaped", "cast"):  # The logarithm, as far as float32 has probabilities.
        np.testing.assert_allclose(found, np.maximum(tf.nn.log_softmax(x @ kernel), -87.3), rtol=1e-3, atol=1e-4)
      else:
        np.testing.assert_allclose(found, x @ kernel, rtol=1e-4, atol=1e-4, err_msg=name)
    np.testing.assert_array_equal(np.asarray(model(x)), before)  # The model is as it was.
  ensemble = tfkd.teachers.Ensemble([models["dense"], models["layer"]])
  np.testing.assert_allclose(ensemble(tf.constant(x)).outputs, x @ kernel, rtol=1e-4, atol=1e-4)


def test_probabilities_of_models_without_a_graph_of_layers_are_converted_or_refused(vectors, tmp_path):
  x, y = vectors
  kernel = 10 * np.random.default_rng(1).normal(size=(6, 4)).astype(np.float32)
  inputs = keras.Input((6,))
  model = keras.Sequential([keras.Input((6,)), layers.Dense(4, "softmax")])
  own = keras.Model(inputs, layers.Lambda(lambda z: tf.nn.softmax(z, axis=-1))(layers.Dense(4)(inputs)))
  for part in (model, own):
    part.set_weights([kernel, np.zeros(4)])
  tf.saved_model.save(model, str(tmp_path))
  student = dense()

  def soft_loss(teacher, **options):
    distiller = tfkd.Distiller(teacher, student, o.SoftTargets(4.0), hard_loss_weight=0.0)
    distiller.compile("sgd", **options)
    return distiller.test_on_batch(x, y, return_dict=True)["soft_targets"]

  right = soft_loss(lambda z: z @ kernel)
  probabilities = tf.nn.softmax(x @ kernel).numpy()
  functions = [lambda z: tf.nn.softmax(z @ kernel), lambda z: model(z), own, tfkd.teachers.saved_model(tmp_path)]
  for teacher in functions:
    assert soft_loss(teacher) == pytest.approx(right, rel=1e-3)
  message = "the teacher gives probabilities, each row of which sums to 1, and logits are expected"
  for teacher, options in (
    (lambda z: tf.nn.softmax(z @ kernel) / 1.0, {}),
    (own, {"run_eagerly": True}),
    (lambda z: tf.numpy_function(lambda _: probabilities, [z], tf.float32), {}),
  ):
    with pytest.raises((tf.errors.InvalidArgumentError, ValueError), match=f"{message}|unknown static shape"):
      soft_loss(teacher, **options)
  distiller = tfkd.Distiller(tfkd.teachers.Precomputed(), student, o.SoftTargets(4.0), hard_loss_weight=0.0)
  distiller.compile("sgd")
  before = student.get_weights()
  with pytest.raises(tf.errors.InvalidArgumentError, match=message):
    distiller.train_on_batch((x, probabilities), y)
  distiller.train_on_batch((x, np.zeros_like(probabilities)), y)
  for old, new in zip(before, student.get_weights(), strict=True):
    assert (old != new).any()  # Zeros are logits.
  distiller = tfkd.Distiller(None, own)
  distiller.compile("sgd", SPARSE, run_eagerly=True)
  with pytest.raises(tf.errors.InvalidArgumentError, match="the student gives probabilities"):
    distiller.train_on_batch(x, y)


def test_softmax_over_another_axis_or_under_a_mask_is_not_removed():
  x = np.random.default_rng(0).normal(size=(5, 3, 6)).astype(np.float32)
  inputs, mask = keras.Input((3, 6)), keras.Input((3, 4), dtype="bool")
  logits = layers.Dense(4)(inputs)
  pooled = layers.GlobalAveragePooling1D()(layers.TimeDistributed(layers.Dense(4, "softmax"))(inputs))
  for output in (layers.Softmax(axis=1)(logits), keras.activations.softmax(logits, axis=1)):
    model = keras.Model(inputs, output)
    np.testing.assert_array_equal(tfkd.teachers.Frozen(model)(x).outputs, model(x))
  valid = np.ones((5, 3, 4), bool)
  valid[..., 0] = False
  masked = keras.Model([inputs, mask], layers.Softmax()(logits, mask=mask))
  for model, batch in ((masked, [x, valid]), (keras.Model(inputs, pooled), x)):
    np.testing.assert_allclose(tf.nn.softmax(tfkd.teachers.Frozen(model)(batch).outputs), model(batch), atol=1e-6)


def test_outputs_are_converted_one_by_one_and_taps_are_not(vectors):
  x, _ = vectors
  inputs = keras.Input((6,))
  heads = {"a": layers.Dense(4, "softmax", name="a")(inputs), "b": layers.Dense(2, name="b")(inputs)}
  teacher = keras.Model(inputs, {**heads, "c": layers.Dense(3, "sigmoid", name="c")(inputs)})
  outputs, features = tfkd.teachers.Frozen(teacher)(x, ["a"])
  np.testing.assert_allclose(tf.nn.softmax(outputs["a"]), teacher(x)["a"], rtol=1e-5)
  assert np.abs(tf.reduce_sum(outputs["a"], -1) - 1).max() > 0.1
  np.testing.assert_array_equal(features["a"], teacher(x)["a"])
  for key in "bc":
    np.testing.assert_array_equal(outputs[key], teacher(x)[key])


@pytest.mark.parametrize(
  "loss, line",
  [
    ("sparse_categorical_crossentropy", r"SparseCategoricalCrossentropy\(from_logits=True\)"),
    ("categorical_crossentropy", r"keras.losses.CategoricalCrossentropy\(from_logits=True\)"),
    (LOSSES.sparse_categorical_crossentropy, r"SparseCategoricalCrossentropy\(from_logits=True\)"),
    (LOSSES.CategoricalCrossentropy(), r"CategoricalCrossentropy\(from_logits=True\)"),
    (LOSSES.BinaryCrossentropy(), r"BinaryCrossentropy\(from_logits=True\)"),
    ("bce", r"BinaryCrossentropy\(from_logits=True\)"),
    (LOSSES.CategoricalFocalCrossentropy(), r"CategoricalFocalCrossentropy\(from_logits=True\)"),
    ([LOSSES.KLDivergence()], "SoftTargets"),
  ],
  ids=["name", "other name", "function", "categorical", "binary", "short name", "focal", "list"],
)
def test_a_hard_loss_of_probabilities_is_refused_with_the_line_to_write(loss, line):
  distiller = tfkd.Distiller(dense(), dense(), o.SoftTargets())
  with pytest.raises(ValueError, match=f"gives logits, and its loss .* expects probabilities: write .*{line}"):
    distiller.compile("sgd", loss)


def test_a_metric_of_probabilities_is_refused_with_the_line_to_write():
  distiller = tfkd.Distiller(dense(), dense(), o.SoftTargets())
  metric = keras.metrics.SparseCategoricalCrossentropy
  for metrics in (["accuracy", "sparse_categorical_crossentropy"], [metric()]):
    with pytest.raises(ValueError, match=r"expects probabilities: write keras.metrics.*\(from_logits=True\)"):
      distiller.compile("sgd", SPARSE, metrics)
  distiller.compile("sgd", SPARSE, ["accuracy", metric(from_logits=True)], weighted_metrics=["accuracy"])


def test_other_hard_losses_are_accepted():
  distiller = tfkd.Distiller(dense(), dense(), o.SoftTargets())
  partial = functools.partial(LOSSES.sparse_categorical_crossentropy, from_logits=True)
  for loss in ("mse", LOSSES.Huber(), "cosine_similarity", partial, SPARSE, LOSSES.BinaryCrossentropy(True), None):
    distiller.compile("sgd", loss)


def test_hard_losses_are_checked_by_output_and_for_subclassed_students_in_the_first_step(vectors):
  inputs = keras.Input((6,))
  heads = {"a": layers.Dense(4, name="a")(inputs), "b": layers.Dense(2, name="b")(inputs)}
  distiller = tfkd.Distiller(None, keras.Model(inputs, heads))
  with pytest.raises(ValueError, match="output 'b' of the student gives logits"):
    distiller.compile("sgd", {"a": SPARSE, "b": "sparse_categorical_crossentropy"})

  class Student(keras.Model):
    def __init__(self, softmax):
      super().__init__()
      self.last = layers.Dense(4, "softmax" if softmax else None)

    def call(self, inputs):
      return self.last(inputs)

  distiller = tfkd.Distiller(dense(), Student(False), o.SoftTargets())
  distiller.compile("sgd", "sparse_categorical_crossentropy")
  with pytest.raises(ValueError, match="expects probabilities"):
    distiller.train_on_batch(*vectors)
  distiller = tfkd.Distiller(dense(), Student(True), o.SoftTargets())
  distiller.compile("sgd", SPARSE)
  with pytest.raises(ValueError, match="the student ends in softmax"):
    distiller.train_on_batch(*vectors)


def test_a_student_of_probabilities_is_refused_if_an_objective_reads_logits(vectors):
  x, y = vectors
  student = keras.Sequential([keras.Input((6,)), layers.Dense(8, name="dense_h"), layers.Dense(4, "softmax")])
  with pytest.raises(ValueError, match="'soft_targets' reads the student's logits, and the student ends in softmax"):
    tfkd.Distiller(dense(), student, o.SoftTargets())
  # With features and a loss of probabilities it fits together.
  teacher = keras.Sequential([keras.Input((6,)), layers.Dense(8, name="dense_h"), layers.Dense(4)])
  distiller = tfkd.Distiller(teacher, student, o.Hint("dense_h", "dense_h"))
  distiller.compile("sgd", "sparse_categorical_crossentropy")
  logs = distiller.test_on_batch(x, y, return_dict=True)
  np.testing.assert_allclose(logs["hard_loss"], LOSSES.SparseCategoricalCrossentropy()(y, student(x)), rtol=1e-5)
  with pytest.raises(ValueError, match="ends in softmax, and its loss .* has from_logits=True"):
    distiller.compile("sgd", SPARSE)
  sigmoid = keras.Sequential([keras.Input((6,)), layers.Dense(4, "sigmoid")])
  for models in ((sigmoid, dense()), (dense(), sigmoid)):
    with pytest.raises(ValueError, match="ends in sigmoid"):
      tfkd.Distiller(*models, o.SoftTargets())


ON_CLASSES = [
  o.SoftTargets,
  functools.partial(o.SoftTargets, source="labels"),
  o.Decoupled,
  o.Normalized,
  o.Dist,
  o.MultiLevel,
  o.TransformedTeacher,
  o.LearnedTemperature,
]


@pytest.mark.parametrize("make", ON_CLASSES)
def test_a_single_logit_is_refused_as_a_class_distribution(make, vectors):
  with pytest.raises(ValueError, match="one logit or one number is no distribution"):
    tfkd.Distiller(dense(1), dense(1), make())
  if make().reads_teacher:
    distiller = tfkd.Distiller(lambda x: x[:, :1], keras.Sequential([layers.Dense(1)]), make(), hard_loss_weight=0.0)
    distiller.compile("sgd")
    with pytest.raises(ValueError, match="one logit or one number is no distribution"):
      distiller.test_on_batch(*vectors)


@pytest.mark.parametrize("temperature", ["4", None, [4.0], True, float("nan"), 0.0, -1])
def test_temperatures_that_are_not_positive_numbers_are_refused(temperature):
  makes = (o.SoftTargets, o.Decoupled, o.Dist, o.TransformedTeacher, lambda t: o.MultiLevel((1.0, t)))
  for make in (*makes, lambda t: setattr(o.SoftTargets(), "temperature", t)):
    with pytest.raises((TypeError, ValueError), match="temperature must be a positive finite number"):
      make(temperature)


def test_shapes_that_do_not_fit_are_refused_when_the_distiller_is_made(vectors):
  def maps(size, pool=1):
    inputs = keras.Input((size, size, 3))
    return keras.Model(inputs, layers.AveragePooling2D(pool)(layers.Conv2D(4, 1)(inputs)))

  with pytest.raises(ValueError, match="compares logits position by position"):
    tfkd.Distiller(maps(8), maps(8, 2), o.SoftTargets())
  with pytest.raises(ValueError, match="reads inputs of shape .* preprocess"):
    tfkd.Distiller(maps(8), maps(4), o.SoftTargets())
  unknown = tfkd.Distiller(lambda x: tf.numpy_function(lambda a: a[:, :4], [x], tf.float32), dense(), o.SoftTargets())
  unknown.compile("sgd", SPARSE)
  with pytest.raises(ValueError, match="unknown static shape .* tf.ensure_shape"):
    unknown.train_on_batch(*vectors)


@pytest.mark.parametrize("make", [lambda: lambda x: x[:, :4], lambda: tfkd.teachers.Ensemble([dense(), dense()])])
def test_teachers_without_layers_are_refused_for_feature_objectives(make):
  words = "has no layers to tap, and objectives read logits|gives no feature logits, .* it gives none: .*ModelOutputs"
  with pytest.raises(ValueError, match=words):
    tfkd.Distiller(make(), dense(), o.Hint("logits", "logits"))
  distiller = tfkd.Distiller(dense(), dense(), o.Hint("logits", "logits"))
  with pytest.raises(ValueError, match=words):
    distiller.teacher = make()


def test_a_teacher_of_a_custom_class_is_used_as_it_is(vectors):
  class Own:
    def __call__(self, inputs, features=()):
      return ModelOutputs(2.0 * inputs[:, :4], {"x": inputs} if "x" in features else {})

    def describe(self):
      return {"version": 1}

  class Logits:
    def __call__(self, inputs):
      return ModelOutputs(2.0 * inputs[:, :4])

  own = Own()
  distiller = tfkd.Distiller(own, dense(), [o.SoftTargets(), o.Hint("x", "logits", connector="linear")])
  distiller.compile("sgd", SPARSE)
  assert distiller.teacher is own and np.isfinite(distiller.train_on_batch(*vectors)).all()
  values = []
  for teacher in (own, Logits(), lambda inputs: 2.0 * inputs[:, :4]):
    distiller = tfkd.Distiller(teacher, distiller.student, o.SoftTargets())
    distiller.compile("sgd", SPARSE)
    values.append(distiller.test_on_batch(*vectors))
  assert values[0] == values[1] == values[2]


def test_objects_of_keras_3_are_refused(vectors):
  import keras as keras3

  distiller = tfkd.Distiller(dense(), dense(), o.SoftTargets())
  for options in (
    {"optimizer": keras3.optimizers.SGD()},
    {"loss": keras3.losses.SparseCategoricalCrossentropy(from_logits=True)},
    {"loss": keras3.losses.sparse_categorical_crossentropy},
    {"metrics": ["accuracy", keras3.metrics.SparseCategoricalAccuracy()]},
  ):
    with pytest.raises(TypeError, match=f"{next(iter(options))} holds .* of Keras 3.*import tf_keras as keras"):
      distiller.compile(**options)
  distiller.compile("sgd", SPARSE)
  with pytest.raises(TypeError, match="callbacks holds EarlyStopping of Keras 3"):
    distiller.fit(*vectors, callbacks=[keras3.callbacks.EarlyStopping()], verbose=0)
  with pytest.raises(TypeError, match="connector is a Keras 3 layer"):
    o.Hint("a", "a", connector=keras3.layers.Dense(4))
