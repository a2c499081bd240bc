"""Networks of `tf_keras.applications` by name: Keras' own outputs before softmax, and its weights."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from tfkd import models

SHAPE = (64, 64, 3)
# One of each kind: Keras' scaling in front, a convolution as last layer, nested layers, Caffe's order of colors.
NETWORKS = ("EfficientNetB0", "MobileNetV3Small", "ConvNeXtTiny", "ResNet50")
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
IMAGES = np.random.default_rng(0).random((2, *SHAPE)).astype(np.float32)


def test_every_network_of_keras_has_a_name():
  names = [n for n in dir(keras.applications) if n[0].isupper() and callable(getattr(keras.applications, n))]
  assert len(names) > 60
  for name in names:
    assert models.parse(f"keras-{name}").func is models.application


@pytest.fixture(scope="module")
def downloaded():
  """Keras' functions of `NETWORKS`, with drawn weights in place of "imagenet", and their models with last layers."""
  wholes, functions = {}, {}

  def replaced(name):
    original = getattr(keras.applications, name)

    def build(weights="imagenet", include_top=True, input_shape=None, **options):
      if weights is None:
        return original(weights=None, include_top=include_top, input_shape=input_shape, **options)
      assert weights == "imagenet" and include_top and input_shape is None, "1,000 classes have the whole network"
      return wholes[name]

    return build

  for name in NETWORKS:
    keras.utils.set_random_seed(1)
    wholes[name] = getattr(keras.applications, name)(weights=None, input_shape=SHAPE, classifier_activation=None)
    functions[name] = replaced(name)
  return functions, wholes


@pytest.mark.parametrize("name", NETWORKS)
def test_logits_are_those_of_keras_on_the_pixels_that_it_expects(name, downloaded, monkeypatch):
  functions, wholes = downloaded
  monkeypatch.setattr(keras.applications, name, functions[name])
  model = models.build(f"keras-{name}@64", 1000, SHAPE, weights="imagenet")
  pixels = 255 * IMAGES
  if name == "ResNet50":
    pixels = keras.applications.resnet.preprocess_input(pixels.copy())
  if name == "EfficientNetB0":  # Its scaling is part of the weights, and without weights only divides by 255.
    pixels = (pixels / 255 - MEAN) / STD * 255
  expected = wholes[name](pixels).numpy()
  np.testing.assert_allclose(model(IMAGES), expected, rtol=0, atol=1e-4 * max(np.ptp(expected), 1e-3))
  network = models.network_of(model)
  assert [layer.name for layer in network.layers[-2:]] == ["embedding", "logits"]


def test_weights_of_other_classes_leave_the_last_layer_new(monkeypatch):
  original = keras.applications.EfficientNetB0

  def downloads(weights, include_top, input_shape=SHAPE, **options):
    if weights:
      assert weights == "imagenet" and not include_top
    model = original(weights=None, include_top=include_top, input_shape=input_shape, **options)
    if weights:
      model.set_weights([np.full_like(value, 0.25) for value in model.get_weights()])
    return model

  monkeypatch.setattr(keras.applications, "EfficientNetB0", downloads)
  model = models.application("EfficientNetB0", 7, SHAPE, weights="imagenet")
  logits = model.get_layer("logits")
  assert all((w.numpy() == 0.25).all() for w in model.weights[: -len(logits.weights)])
  assert logits.units == 7 and np.std(logits.kernel) > 0.01


def test_dense_layers_of_another_size_of_images_raise(monkeypatch):
  original = keras.applications.VGG16

  def downloads(weights, include_top, input_shape=SHAPE, **options):
    return original(include_top, None, input_shape=input_shape, **options)

  monkeypatch.setattr(keras.applications, "VGG16", downloads)
  with pytest.raises(ValueError, match=r"weights of VGG16 have \(2048, 4096\) where images of \(32, 32, 3\) need"):
    models.application("VGG16", 1000, (32, 32, 3), weights="imagenet")


@pytest.mark.parametrize(
  "options, words",
  [
    ({"network": "ResNet18"}, "no network 'ResNet18': expected one of ConvNeXtBase"),
    ({"weights": "noisy"}, "must be None or 'imagenet'; got 'noisy'"),
    ({"num_classes": 1}, "at least 2; got 1"),
    ({"input_shape": (16, 16, 3)}, "at least 32x32"),
  ],
)
def test_invalid_options_raise(options, words):
  with pytest.raises(ValueError, match=words), tf.Graph().as_default():
    models.application(**{"network": "ResNet50", **options})
