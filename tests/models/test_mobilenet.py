"""MobileNets: published sizes, stems for small and large images, and integer files."""

import math

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from tfkd import deploy, models, quantization


@pytest.mark.parametrize(
  "build, weights",
  [
    # Keras' documentation of the applications gives 4.3 and 3.5 million, with statistics; here the papers' networks.
    (lambda: models.mobilenet(), 4_231_976),
    (lambda: models.mobilenet_v2(), 3_504_872),
    (lambda: models.build("mobilenetx0.25", 43), 213_072 + 256 * 43 + 43),
  ],
)
def test_sizes_are_the_published_ones(build, weights):
  with tf.Graph().as_default():  # Does not compute initial values.
    assert sum(math.prod(v.shape) for v in build().trainable_variables) == weights


@pytest.mark.parametrize("name", ["mobilenetx0.25", "mobilenet_v2x0.35"])
@pytest.mark.parametrize("side, map_side, stride", [(64, 4, 1), (96, 3, 2)])
def test_images_above_64_pixels_are_halved_by_the_stem(name, side, map_side, stride):
  with tf.Graph().as_default():
    model = models.build(name, 10, (side, side, 3))
  assert model.get_layer("embedding").input_shape[1:3] == (map_side, map_side)
  assert next(layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)).strides == (stride, stride)
  assert model.layers[-1].name == "logits" and model.name == name


def test_the_large_stem_computes_what_keras_computes():
  images = np.random.default_rng(0).uniform(-1, 1, (2, 65, 97, 3)).astype(np.float32)
  for ours, theirs in ((models.mobilenet, "MobileNet"), (models.mobilenet_v2, "MobileNetV2")):
    alpha = 0.35
    reference = getattr(keras.applications, theirs)((65, 97, 3), alpha=alpha, include_top=False, weights=None)
    model = ours(10, (65, 97, 3), alpha)
    keras.Model(model.input, model.layers[-3].output).set_weights(reference.get_weights())
    mean = reference(images).numpy().mean((1, 2))
    np.testing.assert_allclose(
      keras.Model(model.input, model.get_layer("embedding").output)(images), mean, rtol=1e-4, atol=1e-5
    )


def test_published_weights_are_kept_and_the_last_layer_is_new(monkeypatch):
  asked = []
  original = keras.applications.MobileNetV2

  def downloads(**options):
    asked.append(options.pop("weights"))
    model = original(weights=None, **options)
    for layer in model.layers:
      if isinstance(layer, keras.layers.BatchNormalization):
        layer.moving_mean.assign(tf.fill(layer.moving_mean.shape, 0.5))
    return model

  monkeypatch.setattr(keras.applications, "MobileNetV2", downloads)
  model = models.build("mobilenet_v2x0.35@32", 7, (20, 20, 3), weights="imagenet")
  assert asked == ["imagenet"] and model.output_shape == (None, 7)
  for layer in models.network_of(model).layers:
    if isinstance(layer, keras.layers.BatchNormalization):
      assert (layer.moving_mean.numpy() == 0.5).all() and layer.momentum == 0.9


@pytest.mark.parametrize(
  "options, words",
  [
    ({"stem": "mnist"}, "unknown stem 'mnist'"),
    ({"factor": 0.01}, "factor must be at least 1/32.*got 0.01"),
    ({"num_classes": 1}, "at least 2; got 1"),
    ({"input_shape": (31, 40, 3)}, "at least 32 with the imagenet stem"),
    ({"input_shape": (15, 40, 3), "stem": "cifar"}, "at least 16 with the cifar stem"),
  ],
)
def test_invalid_options_raise(options, words):
  for build in (models.mobilenet, models.mobilenet_v2):
    with pytest.raises(ValueError, match=words), tf.Graph().as_default():
      build(**options)


@pytest.mark.usefixtures("no_trial_conversion")
@pytest.mark.parametrize("name", ["mobilenetx0.25", "mobilenet_v2x0.35"])
def test_quantized_networks_become_integer_files(name, tmp_path):
  images = np.random.default_rng(0).random((8, 32, 32, 3), np.float32)
  student = quantization.quantize(models.build(name, 5), "w8a8", calibration_data=images)
  path = str(tmp_path / "a.tflite")
  deploy.to_tflite(student, path)  # Raises for a tensor that is not an integer.
  dataset = tf.data.Dataset.from_tensors((images, np.zeros(8)))
  np.testing.assert_array_equal(deploy.logits(path, dataset)[0].shape, (8, 5))
