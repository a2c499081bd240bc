"""Teachers from models, ensembles, SavedModels and KerasHub."""

import sys

import keras as keras3
import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from PIL import Image

import tfkd
from tests.losses import references
from tfkd import objectives, quantization, taps, teachers

RNG = np.random.default_rng(0)
X = RNG.uniform(size=(8, 16, 16, 3)).astype(np.float32)
Y = np.arange(8) % 5


def _classifier(library, size=16, classes=5):
  """The same small network in either Keras."""
  layers = library.layers
  inputs = library.Input((size, size, 3))
  x = layers.Conv2D(6, 3, activation="relu", name="features")(inputs)
  x = layers.GlobalAveragePooling2D(name="embedding")(x)
  return library.Model(inputs, layers.Dense(classes, name="logits")(x), name="small")


def _with_batch_norm():
  """A network for quantization, with a feature larger than the one of `_classifier`."""
  inputs = keras.Input((16, 16, 3))
  x = keras.layers.Conv2D(4, 3, padding="same", use_bias=False, name="conv")(inputs)
  x = keras.layers.ReLU(name="layer1")(keras.layers.BatchNormalization(name="bn")(x))
  x = keras.layers.GlobalAveragePooling2D(name="embedding")(x)
  return keras.Model(inputs, keras.layers.Dense(5, name="logits")(x), name="student")


def _softmax(logits):
  e = np.exp(np.asarray(logits, np.float64) - np.max(logits, axis=-1, keepdims=True))
  return e / e.sum(axis=-1, keepdims=True)


class TestPreprocessing:
  def test_scales_then_normalises(self):
    found = teachers.Preprocessing(None, 255.0, (1.0, 2.0, 3.0), (4.0, 5.0, 6.0))(X)
    np.testing.assert_allclose(found, (255.0 * X - [1, 2, 3]) / [4, 5, 6], rtol=1e-5)

  def test_defaults_change_nothing(self):
    np.testing.assert_array_equal(teachers.Preprocessing()(X), X)

  @pytest.mark.parametrize("size", [(8, 8), (32, 32), (5, 23)])
  def test_resizes_as_pillow_does(self, size):
    found = teachers.Preprocessing(size)(X)
    for image, ours in zip(X, found, strict=True):
      for channel in range(3):
        expected = Image.fromarray(image[:, :, channel]).resize(size[::-1], Image.Resampling.BILINEAR)
        np.testing.assert_allclose(ours[:, :, channel], np.asarray(expected), atol=1e-4)

  def test_teacher_and_student_read_one_batch_at_two_sizes(self):
    teacher, student = _classifier(keras, 24), _classifier(keras, 16)
    preprocess = teachers.Preprocessing(24, 2.0, 0.5, 0.25)
    objective = objectives.Hint("embedding", "embedding", weight=1.0)
    distiller = tfkd.Distiller(teachers.Frozen(teacher, preprocess), student, [objectives.SoftTargets(2.0), objective])
    distiller.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    found = distiller.evaluate(X, Y, verbose=0, return_dict=True)
    resized = (2.0 * tf.image.resize(X, (24, 24)) - 0.5) / 0.25
    (t, theirs), (s, ours) = (taps.Reader(m, ["embedding"])(x) for m, x in ((teacher, resized), (student, X)))
    soft = 4 * references.soft_target_kl(t.numpy(), s.numpy(), 2.0).mean()
    assert found["soft_targets"] == pytest.approx(soft, rel=1e-4)
    hint = references.hint(theirs["embedding"].numpy(), ours["embedding"].numpy()).mean()
    assert found["hint"] == pytest.approx(hint, rel=1e-4)


class TestEnsemble:
  def test_means(self):
    one, other = (RNG.normal(size=(8, 5)).astype(np.float32) for _ in range(2))
    parts = [lambda _: tf.constant(one), lambda _: tf.constant(other)]
    found = teachers.Ensemble(parts, weights=[3, 1])(X).outputs
    np.testing.assert_allclose(found, 0.75 * one + 0.25 * other, rtol=1e-5)
    found = teachers.Ensemble(parts, weights=[3, 1], mean_of="probabilities")(X).outputs
    np.testing.assert_allclose(_softmax(found), 0.75 * _softmax(one) + 0.25 * _softmax(other), rtol=1e-5)
    np.testing.assert_allclose(teachers.Ensemble(parts)(X).outputs, (one + other) / 2, rtol=1e-5)

  @pytest.mark.parametrize("pack", [list, tuple, lambda parts: dict(zip(("box", "cls"), parts, strict=True))])
  def test_several_outputs_are_averaged_one_by_one(self, pack):
    boxes, scores = RNG.normal(size=(2, 8, 3, 4)).astype(np.float32), RNG.normal(size=(2, 8, 5)).astype(np.float32)
    parts = [lambda _, i=i: pack([tf.constant(boxes[i]), tf.constant(scores[i])]) for i in range(2)]
    key = "cls" if isinstance(pack([0, 0]), dict) else 1
    found = teachers.Ensemble(parts, [3, 1], mean_of={key: "probabilities"})(X).outputs
    assert type(found) is type(pack([0, 0]))
    box, cls = found.values() if isinstance(found, dict) else found
    np.testing.assert_allclose(box, 0.75 * boxes[0] + 0.25 * boxes[1], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(_softmax(cls), 0.75 * _softmax(scores[0]) + 0.25 * _softmax(scores[1]), rtol=1e-5)
    box, cls = tf.nest.flatten(teachers.Ensemble(parts)(X).outputs)
    np.testing.assert_allclose(cls, scores.mean(0), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="mean_of names 'other'; the outputs of the ensemble are"):
      teachers.Ensemble(parts, mean_of={"other": "probabilities"})(X)

  @pytest.mark.parametrize(
    "other",
    [
      lambda x: x,
      lambda x: {"a": x},
      lambda x: {"a": x, "c": x},
      lambda x: [x, x],
      lambda x: {"a": x, "b": x[:, :1]},
      lambda x: {"a": x, "b": [x]},
    ],
  )
  def test_members_of_different_outputs_are_refused(self, other):
    with pytest.raises(ValueError, match="must have the same outputs, .* got shapes "):
      teachers.Ensemble([lambda x: {"a": x, "b": x}, other])(tf.ones((4, 2)))

  def test_of_distant_logits_is_finite(self):
    parts = [lambda _: tf.constant([[1e4, 0.0]]), lambda _: tf.constant([[-1e4, 0.0]])]
    found = teachers.Ensemble(parts, [1, 0], "probabilities")(X).outputs
    np.testing.assert_allclose(_softmax(found), [[1, 0]])
    assert np.isfinite(teachers.Ensemble(parts, mean_of="probabilities")(X).outputs).all()

  def test_members_have_their_own_preprocessing_and_get_no_gradient(self):
    member = _classifier(keras, 24)
    ensemble = teachers.Ensemble([teachers.Frozen(member, teachers.Preprocessing(24)), _classifier(keras)])
    with tf.GradientTape() as tape:
      outputs = ensemble(X).outputs
    assert outputs.shape == (8, 5) and set(tape.gradient(outputs, member.trainable_variables)) == {None}
    distiller = tfkd.Distiller(ensemble, _classifier(keras), [objectives.SoftTargets(2.0)])
    distiller.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    before = member.get_weights()
    distiller.fit(X, Y, verbose=0)
    for old, new in zip(before, member.get_weights(), strict=True):
      np.testing.assert_array_equal(old, new)
    assert len(distiller.trainable_variables) == 4

  @pytest.mark.parametrize(
    "options, words",
    [
      ({"teachers": []}, "at least one"),
      ({"weights": [1]}, "one for each of 2"),
      ({"weights": [1, -1]}, ">= 0"),
      ({"weights": [0, 0]}, "finite numbers"),
      ({"mean_of": "votes"}, "logits, probabilities"),
    ],
  )
  def test_wrong_options_are_named(self, options, words):
    with pytest.raises(ValueError, match=words):
      teachers.Ensemble(**{"teachers": [_classifier(keras)] * 2, **options})


class TestSavedModel:
  @pytest.mark.parametrize("library", [keras, keras3], ids=["tf_keras", "keras3"])
  def test_outputs_equal_the_exported_model(self, library, tmp_path):
    model = _classifier(library)
    path = str(tmp_path / "exported")
    model.export(path)
    signature = "serving_default" if library is keras3 else "serve"
    teacher = teachers.saved_model(path, teachers.Preprocessing(None, 2.0), signature)
    np.testing.assert_allclose(teacher(X).outputs, model(2 * X, training=False), atol=1e-5)

  def test_missing_models_and_signatures_raise(self, tmp_path):
    with pytest.raises(ValueError, match=r"no SavedModel: expected a directory with saved_model.pb"):
      teachers.saved_model(str(tmp_path))
    _classifier(keras3).export(str(tmp_path / "exported"), verbose=False)
    with pytest.raises(ValueError, match=r"no signature 'other': expected one of .*serving_default"):
      teachers.saved_model(str(tmp_path / "exported"), signature="other")


class TestKeras3:
  def test_layers_are_tapped_by_name(self):
    teacher = _classifier(keras3)
    assert taps.tappable(teacher)["features"].as_list() == [None, 14, 14, 6]
    outputs, found = teachers.Frozen(teacher)(X, ["features"])
    np.testing.assert_allclose(outputs, teacher(X), atol=1e-6)
    np.testing.assert_allclose(found["features"], teacher.get_layer("features")(X), atol=1e-6)
    with pytest.raises(ValueError, match="did you mean 'features'"):
      teachers.Frozen(teacher).feature_shapes(["feature"])

  def test_teaches_a_quantized_student_on_two_replicas(self, two_replicas):
    with two_replicas.scope():
      teacher = _classifier(keras3)
      student = quantization.quantize(_with_batch_norm(), "w8a8", calibration_data=X)
      hint = objectives.Hint("features", "layer1", weight=0.1, connector="conv1x1", alignment="average_pool")
      distiller = tfkd.Distiller(teacher, student, [objectives.SoftTargets(2.0), hint])
      distiller.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    before = [np.asarray(w) for w in teacher.weights]
    logs = distiller.evaluate(X, Y, batch_size=8, verbose=0, return_dict=True)
    logits = student.predict(X, batch_size=4, verbose=0)
    expected = 4 * references.soft_target_kl(np.asarray(teacher(X)), logits, 2.0).mean()
    assert logs["soft_targets"] == pytest.approx(expected, rel=1e-3)
    history = distiller.fit(X, Y, batch_size=8, epochs=2, verbose=0).history
    assert np.isfinite(history["loss"]).all() and history["hint"][1] < history["hint"][0]
    for old, new in zip(before, teacher.weights, strict=True):
      np.testing.assert_array_equal(old, np.asarray(new))


@pytest.fixture(scope="module")
def preset(tmp_path_factory):
  """Path of a preset of KerasHub and its classifier."""
  hub = pytest.importorskip("keras_hub")
  backbone = hub.models.ViTBackbone(
    image_shape=(32, 32, 3), patch_size=8, num_layers=1, num_heads=2, hidden_dim=16, mlp_dim=32
  )
  converter = hub.layers.ViTImageConverter(image_size=(32, 32), scale=1 / 127.5, offset=-1.0)
  classifier = hub.models.ViTImageClassifier(
    backbone, num_classes=7, preprocessor=hub.models.ViTImageClassifierPreprocessor(converter)
  )
  path = str(tmp_path_factory.mktemp("kerashub") / "preset")
  classifier.save_to_preset(path)
  return path, classifier


class TestKerasHub:
  def test_a_preset_keeps_its_weights_and_its_preprocessing(self, preset):
    path, classifier = preset
    teacher = teachers.keras_hub(path)
    expected = classifier(2 * teachers.Preprocessing(32)(X) - 1, training=False)
    np.testing.assert_allclose(teacher(X).outputs, expected, atol=1e-3)
    distiller = tfkd.Distiller(teacher, _classifier(keras, classes=7), [objectives.SoftTargets(2.0)])
    distiller.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    assert np.isfinite(distiller.fit(X, Y, verbose=0).history["loss"]).all()

  def test_another_number_of_classes_gives_a_new_head_on_the_same_features(self, preset):
    path, classifier = preset
    teacher = teachers.keras_hub(path, 3)
    assert teacher(X).outputs.shape == (8, 3)
    for ours, theirs in zip(teacher.model.backbone.weights, classifier.backbone.weights, strict=True):
      np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))

  def test_failed_downloads_list_the_files_to_fetch(self, monkeypatch):
    hub = pytest.importorskip("keras_hub")

    def fail(*args, **kwargs):
      raise ConnectionError("no route")

    monkeypatch.setattr(hub.models.ImageClassifier, "from_preset", fail)
    with pytest.raises(FileNotFoundError, match=r"fetch from https://www.kaggle.com/models/keras/vit.*as preset"):
      teachers.keras_hub("vit_base_patch16_224_imagenet", 10)

  def test_missing_kerashub_names_the_extra_to_install(self, monkeypatch):
    monkeypatch.setitem(sys.modules, "keras_hub", None)
    with pytest.raises(ImportError, match=r"pip install 'tfkd\[vit\]'"):
      teachers.keras_hub("vit_base_patch16_224_imagenet", 10)
