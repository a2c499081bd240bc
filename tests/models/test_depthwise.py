"""Students of the Food-11 homework: within its limit, tapped beside a ResNet, quantized whole."""

import math

import numpy as np
import pytest
import tensorflow as tf

from tfkd import deploy, models, quantization
from tfkd.features.taps import tappable


@pytest.mark.parametrize("build, weights", [(models.depthwise_cnn, 59_851), (models.plain_cnn, 47_787)])
def test_sizes_are_within_the_limit(build, weights):
  assert sum(math.prod(v.shape) for v in build().trainable_variables) == weights < 60_000


@pytest.mark.parametrize("side, stem", [(32, "cifar"), (128, "imagenet"), (224, "imagenet")])
def test_stages_are_as_large_as_a_resnets(side, stem):
  student = tappable(models.depthwise_cnn(11, (side, side, 3)))
  teacher = tappable(models.resnet18(11, (side, side, 3), stem, width=4))
  for stage in ("layer1", "layer2", "layer3", "layer4"):
    assert student[stage][1:3] == teacher[stage][1:3]


@pytest.mark.parametrize("build", [models.depthwise_cnn, models.plain_cnn])
def test_quantizes_whole_and_exports_to_integers(build, tmp_path):
  model = build(10, (32, 32, 3))
  images = np.random.default_rng(0).uniform(size=(32, 32, 32, 3)).astype(np.float32)
  settle = tf.function(lambda: model(images, training=True))
  for _ in range(80):
    settle()  # Batch normalisation comes to know these images.
  quantized = quantization.quantize(model, "w8a8", calibration_data=images)
  plain, rounded = model.predict(images, verbose=0), quantized.predict(images, verbose=0)
  assert np.corrcoef(plain.ravel(), rounded.ravel())[0, 1] > 0.98
  deploy.to_tflite(quantized, str(tmp_path / "model.tflite"))  # Refuses a file with float tensors.


def test_what_cannot_be_built_is_refused():
  with pytest.raises(ValueError, match="at least 30"):
    models.plain_cnn(10, (28, 28, 1))
  for build in (models.depthwise_cnn, models.plain_cnn):
    with pytest.raises(ValueError, match="at least 2; got 1"):
      build(1)
