"""The network of MLPerf Tiny's image classification benchmarks."""

import numpy as np
import pytest
import tf_keras as keras

from tfkd import models

layers = keras.layers


@pytest.mark.parametrize(
  "filters, has_normalization, parameters", [(16, True, 78_666), (16, False, 77_706), (40, False, 480_330)]
)
def test_parameters_are_those_of_the_benchmarks(filters, has_normalization, parameters):
  model = models.mlperf_resnet8(filters=filters, has_normalization=has_normalization)
  assert model.count_params() == parameters


def test_it_computes_what_the_published_description_says():
  """Against the network of mlcommons/tiny, written layer by layer without a loop."""
  model = models.build("mlperf_resnet8x0.25", 10, (32, 32, 3))
  rng = np.random.default_rng(0)
  for layer in model.layers:
    layer.set_weights([rng.uniform(0.1, 0.5, w.shape) * rng.choice([-1, 1]) for w in layer.get_weights()])
    if isinstance(layer, layers.BatchNormalization):
      layer.set_weights([np.abs(w) for w in layer.get_weights()])
  images = rng.normal(size=(3, 32, 32, 3)).astype(np.float32)

  def conv(x, channels, size=3, stride=1):
    return layers.Conv2D(channels, size, stride, padding="same")(x)

  inputs = keras.Input((32, 32, 3))
  x = layers.ReLU()(layers.BatchNormalization()(conv(inputs, 4)))
  y = layers.ReLU()(layers.BatchNormalization()(conv(x, 4)))
  y = layers.BatchNormalization()(conv(y, 4))
  x = layers.ReLU()(layers.Add()([x, y]))
  y = layers.ReLU()(layers.BatchNormalization()(conv(x, 8, stride=2)))
  y = layers.BatchNormalization()(conv(y, 8))
  x = layers.ReLU()(layers.Add()([conv(x, 8, 1, 2), y]))
  y = layers.ReLU()(layers.BatchNormalization()(conv(x, 16, stride=2)))
  y = layers.BatchNormalization()(conv(y, 16))
  x = layers.ReLU()(layers.Add()([conv(x, 16, 1, 2), y]))
  x = layers.Dense(10)(layers.Flatten()(layers.AveragePooling2D(8)(x)))
  published = keras.Model(inputs, x)
  # In the order of the layers' creation, but that the shortcut precedes the sum.
  own = [layer.get_weights() for layer in model.layers if layer.weights]
  theirs = [layer for layer in published.layers if layer.weights]
  shapes = [[w.shape for w in weights] for weights in own]
  assert sorted(map(str, shapes)) == sorted(str([w.shape for w in layer.get_weights()]) for layer in theirs)
  for layer in theirs:
    number = next(i for i, of in enumerate(own) if [w.shape for w in of] == [w.shape for w in layer.get_weights()])
    layer.set_weights(own.pop(number))
  expected = published.predict(images, verbose=0)
  np.testing.assert_allclose(model.predict(images, verbose=0), expected, rtol=1e-4)
