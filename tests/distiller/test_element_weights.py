"""Weights of elements: sample weights of any rank, Keras masks, both, by output, on one replica and two."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import tfkd
from tests.distiller.small import SPARSE
from tests.losses import references
from tfkd import objectives as o

layers = keras.layers
BATCH, STEPS, WORDS, CLASSES = 10, 6, 20, 4
RNG = np.random.default_rng(0)
LENGTHS = RNG.integers(2, STEPS + 1, BATCH)
TOKENS = RNG.integers(1, WORDS, (BATCH, STEPS)) * (np.arange(STEPS) < LENGTHS[:, None])
TARGETS = RNG.dirichlet(np.ones(CLASSES), (BATCH, STEPS)).astype(np.float32)
PER_TOKEN = RNG.choice([0.0, 0.5, 1.0, 2.0], (BATCH, STEPS)).astype(np.float32)
CROSS_ENTROPY = keras.losses.CategoricalCrossentropy(from_logits=True)
WEIGHTS = {
  "none": None,
  "[B]": PER_TOKEN[:, 0],
  "[B, 1]": PER_TOKEN[:, :1],
  "[B, T]": PER_TOKEN,
}


def tagger(masked, dtype=None):
  keras.utils.set_random_seed(3)
  inputs = keras.Input((STEPS,), dtype="int32")
  hidden = layers.Embedding(WORDS, 5, mask_zero=masked, name="words")(inputs)
  hidden = layers.Dense(4, "tanh", name="hidden")(hidden)  # Passes the mask on.
  return keras.Model(inputs, layers.Dense(CLASSES, name="tags", dtype=dtype)(hidden))


def _steps(model, inputs, weights):
  """Loss and weights after two steps with an uneven last batch, and the loss of an evaluation before."""
  columns = (inputs, TARGETS) if weights is None else (inputs, TARGETS, weights)
  data = tf.data.Dataset.from_tensor_slices(columns).batch(6)
  evaluated = model.evaluate(data, verbose=0, return_dict=True)["loss"]
  model.fit(data, verbose=0)
  return evaluated, model.get_weights()[: len(tagger(False).weights)]


@pytest.mark.parametrize("masked", [False, True], ids=["unmasked", "masked"])
@pytest.mark.parametrize("weights", WEIGHTS)
def test_an_objective_takes_the_steps_of_the_same_hard_loss_in_keras(masked, weights):
  # Soft targets at T = 1 whose teacher has the logarithm of the labels: Keras' cross-entropy, element by element.
  plain, student = tagger(masked), tagger(masked)
  plain.compile(keras.optimizers.SGD(0.5), CROSS_ENTROPY, run_eagerly=True)
  objective = o.SoftTargets(1.0, form="cross_entropy")
  distiller = tfkd.Distiller(tfkd.teachers.Precomputed(), student, objective, hard_loss_weight=0.0)
  distiller.compile(keras.optimizers.SGD(0.5), CROSS_ENTROPY, run_eagerly=True)
  expected = _steps(plain, TOKENS, WEIGHTS[weights])
  found = _steps(distiller, (TOKENS, np.log(TARGETS)), WEIGHTS[weights])
  np.testing.assert_allclose(found[0], expected[0], rtol=1e-5)
  for a, b in zip(expected[1], found[1], strict=True):
    np.testing.assert_allclose(b, a, atol=1e-6)


@pytest.mark.parametrize("masked", [False, True], ids=["unmasked", "masked"])
def test_two_replicas_take_the_same_steps_as_one(two_replicas, masked):
  found = []
  for strategy in (tf.distribute.get_strategy(), two_replicas):
    with strategy.scope():
      keras.utils.set_random_seed(4)
      objectives = [o.SoftTargets(2.0), o.Hint("hidden", "hidden"), o.Decoupled(2.0)]
      distiller = tfkd.Distiller(tagger(False), tagger(masked), objectives)
      distiller.student.set_weights([1.5 * w for w in distiller.student.get_weights()])
      distiller.compile(keras.optimizers.SGD(0.1), CROSS_ENTROPY, run_eagerly=strategy is not two_replicas)
    found.append(_steps(distiller, TOKENS, PER_TOKEN))
  np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-5)
  for a, b in zip(found[0][1], found[1][1], strict=True):
    np.testing.assert_allclose(a, b, atol=1e-6)


def test_masks_survive_taps_and_mixed_precision():
  keras.mixed_precision.set_global_policy("mixed_bfloat16")
  try:
    student = tagger(True)
  finally:
    keras.mixed_precision.set_global_policy("float32")
  teacher = tagger(False)
  teacher.set_weights([3 * w for w in teacher.get_weights()])
  distiller = tfkd.Distiller(teacher, student, [o.SoftTargets(2.0, form="kl"), o.Hint("hidden", "hidden")])
  distiller.compile("sgd", CROSS_ENTROPY)
  logs = distiller.test_on_batch(TOKENS, TARGETS, return_dict=True)
  t, s = teacher(TOKENS).numpy(), tf.cast(student(TOKENS), tf.float32).numpy()
  valid = TOKENS > 0
  np.testing.assert_allclose(
    logs["soft_targets"], 4 * references.soft_target_kl(t[valid], s[valid], 2.0).mean(), rtol=1e-4
  )
  features = [keras.Model(m.input, m.get_layer("hidden").output)(TOKENS) for m in (teacher, student)]
  t, s = (tf.cast(f, tf.float32).numpy() for f in features)
  np.testing.assert_allclose(logs["hint"], ((t - s) ** 2).mean(-1)[valid].mean(), rtol=1e-3)
  np.testing.assert_allclose(logs["hard_loss"], _plain_loss(student), rtol=1e-2)


def _plain_loss(model):
  model.compile(loss=CROSS_ENTROPY)
  return model.test_on_batch(TOKENS, TARGETS)


PIXELS = RNG.normal(size=(6, 8, 8, 3)).astype(np.float32)
CLASS_OF_PIXEL = RNG.integers(0, 4, (6, 8, 8))
MASK = np.ones((6, 8, 8), np.float32)
MASK[:, :, 4:] = 0
MASK[5] = 0


def _objectives():
  """Every objective, with a connector of each kind."""
  return [
    o.SoftTargets(2.0),
    o.Decoupled(),
    o.Normalized(),
    o.Dist(),
    o.MultiLevel(),
    o.TransformedTeacher(),
    o.LearnedTemperature(),
    o.Hint(["a", "b"], ["a", "b"], connector="project_bn"),
    o.Euclidean("b", "b"),
    o.NormalizedFeatureMatching("b", "b"),
    o.AttentionTransfer("b", "b"),
    o.NeuronSelectivity("a", "a"),
    o.ChannelWise(["a", "b"], ["a", "b"]),
    o.SimilarityPreserving("b", "b"),
    o.FlowOfSolutionProcedure(["a", "b"], ["a", "b"], connector="project"),
    o.KDSVD(["a", "b"], ["a", "b"], connector="project"),
    o.ActivationBoundary("b", "b"),
    o.FactorTransfer("b", "b"),
    o.VariationalInformation("b", "b"),
    o.ReviewKD(["a", "b"], ["a", "b"]),
    o.OFD("b", "b"),
    o.SRD("b", "b"),
    o.ICKD("b", "b"),
    o.RKDDistance("b", "b"),
    o.RKDAngle("a", "a"),
    o.DistanceMetric("b", "b"),
    o.CorrelationCongruence("b", "b"),
    o.ProbabilisticTransfer("b", "b"),
  ]


def _pixelwise(name, shape=(8, 8, 3)):
  """Features "a" of single pixels or steps of a sequence, and "b" of disjoint blocks of 2x2 pixels or 2 steps."""
  maps = len(shape) == 3
  convolution, larger = (layers.Conv2D, layers.UpSampling2D) if maps else (layers.Conv1D, layers.UpSampling1D)
  inputs = keras.Input(shape)
  a = convolution(4, 1, name="a")(inputs)
  b = convolution(4, 2, strides=2, name="b")(a)
  both = layers.Concatenate()([a, larger()(b)])
  return keras.Model(inputs, convolution(4, 1, name="logits")(both), name=name)


@pytest.mark.parametrize("shape", [(8, 8, 3), (8, 3)], ids=["maps", "sequences"])
def test_values_of_zero_weight_elements_change_no_bit_of_a_step(shape):
  # Teacher features, teacher logits and labels of these elements are replaced by NaN and -1.
  base, student = _pixelwise("teacher", shape), _pixelwise("student", shape)
  rows = len(shape) == 3
  inputs, mask, classes = (x if rows else x[:, 0] for x in (PIXELS, MASK, CLASS_OF_PIXEL))
  coarse = mask[:, ::2, ::2] if rows else mask[:, ::2]
  teacher = keras.Model(base.input, [base.output, *(base.get_layer(name).output for name in ("a", "b"))])
  clean = teacher.predict(inputs, verbose=0)
  objectives = _objectives()
  distiller = tfkd.Distiller(tfkd.teachers.Precomputed(), student, objectives, hard_loss_weight=0.0)
  distiller.compile(keras.optimizers.SGD(1e-6), run_eagerly=True)

  def fit(spoilt, epochs=2):
    outputs, *features = (array.copy() for array in clean)
    outputs[mask == 0] += spoilt
    features[0][mask == 0] += spoilt
    features[1][coarse == 0] += spoilt
    labels = np.where(mask == 0, -1 if spoilt else 0, classes)
    columns = (inputs, (outputs, dict(zip("ab", features, strict=True))))
    data = tf.data.Dataset.from_tensor_slices((columns, labels, mask)).batch(6)
    return distiller.fit(data, epochs=epochs, verbose=0).history

  fit(0.0, epochs=1)  # The first step makes the connectors.
  start, trained = distiller.get_weights(), []
  for spoilt in (0.0, np.nan):
    distiller.set_weights(start)
    trained.append((fit(spoilt), distiller.get_weights()))
  (logs, weights), (spoilt_logs, spoilt_weights) = trained
  for objective in objectives:
    assert np.isfinite(logs[objective.name]).all(), objective.name
    np.testing.assert_array_equal(logs[objective.name], spoilt_logs[objective.name], objective.name)
  assert any((a != b).any() for a, b in zip(start, weights, strict=True))
  for a, b in zip(weights, spoilt_weights, strict=True):
    np.testing.assert_array_equal(a, b)


def test_feature_losses_are_weighted_by_position_and_at_other_resolutions():
  weights = RNG.uniform(0, 2, (6, 8, 8)).astype(np.float32) * MASK
  teacher, student = _pixelwise("teacher"), _pixelwise("student")
  objectives = [
    o.Hint("a", "a"),
    o.Hint("b", "b", name="coarse"),
    o.ActivationBoundary("a", "a", connector=None, name="sum"),
    o.AttentionTransfer("a", "a"),
    o.DistanceMetric("a", "a"),
    o.ChannelWise(["a", "b"], ["a", "b"], 2.0),
  ]
  distiller = tfkd.Distiller(teacher, student, objectives)
  distiller.compile("sgd", SPARSE)
  logs = distiller.test_on_batch(PIXELS, CLASS_OF_PIXEL, sample_weight=weights, return_dict=True)

  def read(layer):
    return [keras.Model(m.input, m.get_layer(layer).output)(PIXELS).numpy().astype(float) for m in (teacher, student)]

  (t, s), coarse = read("a"), weights.reshape(6, 4, 2, 4, 2).mean((2, 4))
  np.testing.assert_allclose(logs["hint"], (((t - s) ** 2).mean(-1) * weights).mean(), rtol=1e-5)
  boundary = references.activation_boundary(t.reshape(-1, 4), s.reshape(-1, 4), margin=1.0).reshape(6, 8, 8)
  np.testing.assert_allclose(logs["sum"], (boundary * weights).sum((1, 2)).mean(), rtol=1e-5)
  keep = (weights > 0)[..., None]
  value = references.attention_transfer((t * keep)[:5], (s * keep)[:5]) * weights.mean((1, 2))[:5]
  np.testing.assert_allclose(logs["attention_transfer"], value.sum() / 6, rtol=1e-4)
  channels = references.channel_wise_kl(t, s, 2.0, weights) + references.channel_wise_kl(*read("b"), 2.0, coarse)
  np.testing.assert_allclose(logs["channel_wise"], (channels * weights.mean((1, 2))).mean(), rtol=1e-4)
  counted = keep[:5]
  t, s = ((f[:5] * counted).sum((1, 2)) / counted.sum((1, 2)) for f in (t, s))
  np.testing.assert_allclose(logs["distance_metric"], references.distance_metric(t, s) * weights.mean(), rtol=1e-4)
  t, s = read("b")
  np.testing.assert_allclose(logs["coarse"], (((t - s) ** 2).mean(-1) * coarse).mean(), rtol=1e-5)
  hard = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(CLASS_OF_PIXEL, student(PIXELS), weights)
  np.testing.assert_allclose(logs["hard_loss"], hard, rtol=1e-5)


def _heads(as_dict):
  inputs = keras.Input((6,))
  hidden = layers.Dense(5, name="hidden")(inputs)
  heads = {"a": layers.Dense(4, name="a")(hidden), "b": layers.Dense(3, name="b")(hidden)}
  return keras.Model(inputs, heads if as_dict else list(heads.values()))


@pytest.mark.parametrize("as_dict", [True, False], ids=["dict", "list"])
def test_weights_of_some_outputs_reach_the_objectives_that_read_these_outputs(vectors, as_dict):
  x, y = vectors
  teacher, student = _heads(as_dict), _heads(as_dict)
  weights = RNG.uniform(0, 2, len(x)).astype(np.float32)
  keys = ("a", "b") if as_dict else (0, 1)
  objectives = [
    o.SoftTargets(2.0, form="kl", output=keys[0], name="soft_a"),
    o.SoftTargets(2.0, form="kl", output=keys[1], name="soft_b"),
    o.Hint("hidden", "hidden", output=keys[0], name="hint_a"),
    o.Hint("hidden", "hidden", name="hint_all"),
  ]
  distiller = tfkd.Distiller(teacher, student, objectives)
  loss, labels = {"a": SPARSE, "b": SPARSE}, {"a": y, "b": y % 3}
  distiller.compile("sgd", loss)
  logs = distiller.test_on_batch(x, labels, sample_weight={"a": weights}, return_dict=True)
  student.compile("sgd", loss)
  plain = student.test_on_batch(x, labels, sample_weight={"a": weights}, return_dict=True)
  np.testing.assert_allclose(logs["hard_loss"], plain["loss"], rtol=1e-5)
  np.testing.assert_allclose(logs["a_loss"], plain["a_loss"], rtol=1e-5)
  t, s = teacher(x), student(x)
  kl = [4 * references.soft_target_kl(t[key].numpy(), s[key].numpy(), 2.0) for key in keys]
  np.testing.assert_allclose([logs["soft_a"], logs["soft_b"]], [(kl[0] * weights).mean(), kl[1].mean()], rtol=1e-4)
  features = [keras.Model(m.input, m.get_layer("hidden").output)(x).numpy() for m in (teacher, student)]
  hint = ((features[0] - features[1]) ** 2).mean(-1)
  np.testing.assert_allclose(logs["hint_a"], (hint * weights).mean(), rtol=1e-5)
  np.testing.assert_allclose(logs["hint_all"], (hint * (weights + 1) / 2).mean(), rtol=1e-5)


def test_weights_of_another_shape_than_the_outputs_are_refused():
  student = _pixelwise("student")
  distiller = tfkd.Distiller(_pixelwise("teacher"), student, o.SoftTargets(2.0), hard_loss_weight=0.0)
  distiller.compile("sgd")
  with pytest.raises(ValueError, match=r"sample_weight .* of shape \(6, 5, 5\) does not fit an output"):
    distiller.test_on_batch(PIXELS, CLASS_OF_PIXEL, sample_weight=np.ones((6, 5, 5), np.float32))


def test_class_weights_reach_each_token_or_are_refused():
  labels, factors = RNG.integers(0, CLASSES, (BATCH, STEPS)), {0: 1.0, 1: 2.0, 2: 0.0, 3: 0.5}
  models = [tagger(False), tfkd.Distiller(tagger(False), tagger(False), o.SoftTargets(2.0))]
  for model in models:
    model.compile(keras.optimizers.SGD(0.0), SPARSE)
  with pytest.raises(ValueError, match=r"class_weight with class indices of 2 axes.*labels\[..., None\]"):
    models[1].fit(TOKENS, labels, class_weight=factors, verbose=0)
  fit = {"class_weight": factors, "verbose": 0, "batch_size": BATCH}
  plain, logs = (model.fit(TOKENS, labels[..., None], **fit).history for model in models)
  np.testing.assert_allclose(logs["hard_loss"], plain["loss"], rtol=1e-5)
  weights = np.array(list(factors.values()))[labels]
  logits = 2 * models[1].teacher.model(TOKENS).numpy()
  logits[weights == 0] = np.nan
  precomputed = tfkd.Distiller(tfkd.teachers.Precomputed(), tagger(False), o.SoftTargets(2.0))
  precomputed.compile(keras.optimizers.SGD(0.0), SPARSE)
  found = precomputed.fit((TOKENS, logits), labels[..., None], **fit).history["soft_targets"][0]
  rows = [np.nan_to_num(t).reshape(-1, CLASSES) for t in (logits, precomputed.student(TOKENS).numpy())]
  each = 4 * np.asarray(references.soft_target_kl(*rows, 2.0))
  np.testing.assert_allclose(found, (each * weights.ravel()).mean(), rtol=1e-4)


def test_a_batch_without_valid_elements_takes_no_step():
  for objectives in (o.SoftTargets(2.0), [o.Hint("hidden", "hidden"), o.MultiLevel()]):
    distiller = tfkd.Distiller(tagger(False), tagger(True), objectives)
    distiller.compile(keras.optimizers.SGD(0.5), CROSS_ENTROPY, run_eagerly=True)
    before = distiller.student.get_weights()
    logs = distiller.train_on_batch(np.zeros_like(TOKENS), TARGETS, return_dict=True)
    assert all(value == 0 for value in logs.values())
    for old, new in zip(before, distiller.student.get_weights(), strict=True):
      np.testing.assert_array_equal(old, new)


def test_a_sum_over_elements_is_taken_on_one_replica_and_refused_on_two(two_replicas):
  summed = keras.losses.CategoricalCrossentropy(from_logits=True, reduction="sum")
  plain = tagger(True)
  plain.compile("sgd", summed)
  distiller = tfkd.Distiller(None, tagger(True))
  distiller.compile("sgd", summed)
  logs = distiller.test_on_batch(TOKENS, TARGETS, PER_TOKEN, return_dict=True)
  np.testing.assert_allclose(logs["hard_loss"], plain.test_on_batch(TOKENS, TARGETS, PER_TOKEN), rtol=1e-6)
  with two_replicas.scope():
    distiller = tfkd.Distiller(None, tagger(False))
    distiller.compile("sgd", summed)
  with pytest.raises(ValueError, match="reduction SUM"):
    distiller.fit(TOKENS, TARGETS, verbose=0)


def test_no_weights_trace_no_operations_for_them():
  objectives = [o.SoftTargets(2.0, form="cross_entropy"), o.Hint("a", "a")]
  distiller = tfkd.Distiller(_pixelwise("teacher"), _pixelwise("student"), objectives)
  distiller.compile("sgd", SPARSE)
  batch = tf.constant(PIXELS), tf.constant(CLASS_OF_PIXEL)
  plain = tf.function(lambda *data: distiller.test_step(data)).get_concrete_function(*batch)
  weighted = tf.function(lambda *data: distiller.test_step(data)).get_concrete_function(*batch, tf.constant(MASK))
  counts = [
    len([op for op in f.graph.get_operations() if op.type in ("SelectV2", "NotEqual")]) for f in (plain, weighted)
  ]
  assert counts[0] == 0 < counts[1]
