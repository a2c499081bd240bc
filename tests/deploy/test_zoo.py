"""Every family of networks is exported, in float and quantized."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from tfkd import deploy, models, quantization
from tfkd.deploy._interpreter import interpreter
from tfkd.models.resnet import _bottleneck, _resnet

pytestmark = pytest.mark.usefixtures("no_trial_conversion")
IMAGES = np.random.default_rng(0).random((16, 32, 32, 3), np.float32)
NETWORKS = {
  "svhn_cnn": lambda: models.build("svhn_cnnx0.125"),
  "plain_cnn": lambda: models.build("plain_cnn"),
  "depthwise_cnn": lambda: models.build("depthwise_cnn"),
  "resnet8": lambda: models.build("resnet8"),
  "wrn-10-1": lambda: models.build("wrn-10-1"),
  "resnet18": lambda: models.resnet18(width=4, stem="imagenet", input_shape=(64, 64, 3)),
  # The blocks of ResNet-50. Fifty untrained layers are chaotic: noise of 1/256 leaves a correlation of 0.88.
  "bottlenecks": lambda: _resnet((2, 1, 1, 1), _bottleneck, 4, 10, (32, 32, 3), "cifar", 4, "bottlenecks"),
}


def _dataset(images):
  return tf.data.Dataset.from_tensors((images, np.zeros(len(images))))


def _settle(model, images):
  """Gives batch normalisation the statistics of the images, which calibration sees."""
  normalizations = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
  momenta = [layer.momentum for layer in normalizations]
  for layer in normalizations:
    layer.momentum = 0.0
  model(images, training=True)
  for layer, momentum in zip(normalizations, momenta, strict=True):
    layer.momentum = momentum


def _correlation(a, b):
  return np.corrcoef(np.ravel(a), np.ravel(b))[0, 1]


@pytest.mark.parametrize("network", NETWORKS)
def test_convolutional_networks_become_float_and_integer_files(network, tmp_path):
  path = str(tmp_path / "a.tflite")
  model = NETWORKS[network]()
  images = np.random.default_rng(0).random((16, *model.input_shape[1:]), np.float32)
  _settle(model, images)
  expected = model(images).numpy()
  deploy.to_tflite(model, path)
  np.testing.assert_allclose(deploy.logits(path, _dataset(images))[0], expected, rtol=0, atol=1e-3)
  student = quantization.quantize(model, "w8a8", calibration_data=images)
  rounded = student(images).numpy()
  assert _correlation(expected, rounded) > 0.99
  deploy.to_tflite(student, path)  # Raises for a tensor that is not an integer.
  written, _ = deploy.logits(path, _dataset(images))
  assert _correlation(written, rounded) > 0.99
  # Of untrained weights: the logits of a trained student differ by 4 at most.
  step = interpreter(path).get_output_details()[0]["quantization"][0]
  assert np.abs(written - rounded).max() <= 16 * step


def test_a_transformer_becomes_an_integer_file_after_training(tmp_path):
  path = str(tmp_path / "a.tflite")
  model = models.vit(10, (32, 32, 3), patch_size=16, width=192, depth=2)
  size = deploy.to_tflite(model, path)
  assert deploy.evaluate(path, _dataset(IMAGES), model)["worst_difference"] < 1e-3
  assert deploy.to_tflite(model, path, representative_data=IMAGES) < 0.3 * size
  assert deploy.evaluate(path, _dataset(IMAGES), model)["images"] == 16
  with pytest.raises(ValueError, match="'tokens' .*its weights have no 8-bit form"):
    quantization.quantize(model, "w8a8", calibration_data=IMAGES)


def test_a_network_that_resizes_its_inputs_is_exported(tmp_path):
  path = str(tmp_path / "a.tflite")
  model = models.build("svhn_cnnx0.125@64")
  deploy.to_tflite(model, path)
  assert deploy.evaluate(path, _dataset(IMAGES), model)["worst_difference"] < 1e-4
