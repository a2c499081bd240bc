"""All convolutional layers of the networks are quantized, and the quantized network approximates the float one."""

import numpy as np
import pytest
import tensorflow as tf

from tfkd import deploy, models, quantization

RESNET18_IMAGENET = "resnet18, stem imagenet"


def _build(name):
  if name == RESNET18_IMAGENET:
    return models.resnet18(width=4, stem="imagenet", input_shape=(64, 64, 3))
  return models.build(name)


@pytest.mark.parametrize(
  "name, correlation",
  [
    (RESNET18_IMAGENET, 0.99),
    # Fifty untrained layers are chaotic: noise of 1/256 in the images alone leaves a correlation of 0.88.
    ("resnet50x0.0625", 0.75),
    ("resnet8", 0.99),
    ("wrn-10-1", 0.99),
    ("depthwise_cnn", 0.98),
    ("plain_cnn", 0.98),
  ],
)
def test_quantized_networks_approximate_float_networks(name, correlation, tmp_path):
  model = _build(name)
  images = np.random.default_rng(0).uniform(size=(32, *model.input_shape[1:])).astype(np.float32)
  # Batch normalization learns the statistics of these images, which calibration uses.
  settle = tf.function(lambda: model(images, training=True))
  for _ in range(80):
    settle()
  quantized = quantization.quantize(model, "w8a8", calibration_data=images)
  plain, rounded = model(images, training=False).numpy(), quantized(images, training=False).numpy()
  assert np.corrcoef(plain.ravel(), rounded.ravel())[0, 1] > correlation
  if name == RESNET18_IMAGENET:  # tests/deploy/test_zoo.py exports the others.
    path = str(tmp_path / "model.tflite")
    deploy.to_tflite(quantized, path)  # Raises if a tensor of the file is float.
    written, _ = deploy.logits(path, tf.data.Dataset.from_tensor_slices((images, np.zeros(32))).batch(16))
    assert np.corrcoef(written.ravel(), rounded.ravel())[0, 1] > correlation
