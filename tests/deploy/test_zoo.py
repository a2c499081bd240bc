"""Every network as a file."""

import numpy as np
import pytest
import tensorflow as tf

from tfkd import deploy, models, quantization

IMAGES = np.random.default_rng(0).random((8, 32, 32, 3), np.float32)
DATASET = tf.data.Dataset.from_tensors((IMAGES, np.zeros(8)))
NARROW = (
  "svhn_cnnx0.125", "plain_cnn", "depthwise_cnn", "resnet8", "wrn-10-1", "resnet18x0.0625", "resnet34x0.0625",
  "resnet50x0.0625",
)  # fmt: skip


@pytest.mark.parametrize("network", NARROW)
def test_convolutional_networks_become_integers(network, tmp_path):
  path = str(tmp_path / "a.tflite")
  model = models.build(network)
  deploy.to_tflite(model, path)
  assert deploy.evaluate(path, DATASET, model)["worst_difference"] < 1e-3
  student = quantization.quantize(model, "w8a8", calibration_data=IMAGES)
  deploy.to_tflite(student, path)  # Which finds a tensor that is not an integer.
  # Of weights that nobody trained, in up to fifty layers: a trained student's are 4 at the most.
  assert deploy.evaluate(path, DATASET, student)["worst_steps"] <= 16


def test_a_transformer_becomes_integers_after_its_training(tmp_path):
  path = str(tmp_path / "a.tflite")
  model = models.build("vit_tiny16")
  size = deploy.to_tflite(model, path)
  assert deploy.evaluate(path, DATASET, model)["worst_difference"] < 1e-3
  assert deploy.to_tflite(model, path, representative_data=IMAGES) < 0.3 * size
  assert deploy.evaluate(path, DATASET, model)["images"] == 8
  with pytest.raises(ValueError, match="'block0_attention' .*tfmot has no 8-bit form of this layer"):
    quantization.quantize(model, "w8a8", calibration_data=IMAGES)


def test_a_network_that_resizes_what_it_is_given(tmp_path):
  path = str(tmp_path / "a.tflite")
  model = models.build("svhn_cnnx0.125@64")
  deploy.to_tflite(model, path)
  assert deploy.evaluate(path, DATASET, model)["worst_difference"] < 1e-4
