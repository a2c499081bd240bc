"""The residual network of MLPerf Tiny's image classification benchmarks."""

import functools

import tf_keras as keras

from tfkd.models.classifier import classifier
from tfkd.models.family import FACTOR, Family, scaled
from tfkd.preprocessing import Preprocessing

layers = keras.layers
_FILTERS = 16


def mlperf_resnet8(
  num_classes: int = 10,
  input_shape: tuple[int, int, int] = (32, 32, 3),
  filters: int = _FILTERS,
  has_normalization: bool = True,
  name: str = "mlperf_resnet8",
) -> keras.Model:
  """Builds the reference network of MLPerf Tiny's IC01, and with 40 filters that of IC02.

  A stem and three stages of one block, of `filters`, 2 and 4 times as many channels. Convolutions have biases, and the
  shortcuts of the second and third stage are 1x1 convolutions without batch normalization. 78,666 parameters with 16
  filters and ten classes, 77,706 without batch normalization; 480,330 with 40 filters without it. The taps are
  `layer1` to `layer3`, after the last ReLU of a stage, and `embedding`.

  Source: mlcommons/tiny, `benchmark/training/image_classification/keras_model.py`. Differs: the output is logits, not
  probabilities.

  Args:
    num_classes: size of the output, >= 2.
    input_shape: (height, width, channels). The published weights read pixel values in [0, 255].
    filters: channels of the stem and of the first stage.
    has_normalization: whether batch normalization follows the 3x3 convolutions; False for networks whose normalization
      is part of the convolutions, as in published files.
    name: name of the model.

  Returns:
    A `tf_keras` functional model from images to logits [batch, num_classes].

  Raises:
    ValueError: fewer than two classes.
  """

  def convolution(x, channels, kernel, stride, name):
    return layers.Conv2D(channels, kernel, stride, padding="same", kernel_initializer="he_normal", name=name)(x)

  def normalized(x, channels, stride, name):
    x = convolution(x, channels, 3, stride, name)
    return layers.BatchNormalization(name=f"{name}_bn")(x) if has_normalization else x

  inputs = keras.Input(input_shape, name="images")
  x = layers.ReLU(name="relu1")(normalized(inputs, filters, 1, "conv1"))
  for stage in range(3):
    block, channels, stride = f"layer{stage + 1}_block0", filters * 2**stage, 1 if stage == 0 else 2
    y = layers.ReLU(name=f"{block}_relu1")(normalized(x, channels, stride, f"{block}_conv1"))
    y = normalized(y, channels, 1, f"{block}_conv2")
    if stage > 0:
      x = convolution(x, channels, 1, stride, f"{block}_shortcut")
    x = layers.ReLU(name=f"layer{stage + 1}")(layers.Add(name=f"{block}_add")([x, y]))
  return classifier(inputs, x, num_classes, name)


def _named(match):
  filters = scaled(_FILTERS, match)
  return functools.partial(mlperf_resnet8, filters=filters, name=match[0]) if filters else None


FAMILIES = (
  Family(
    f"mlperf_resnet8{FACTOR}",
    "mlperf_resnet8, or mlperf_resnet8x<factor of the width>, as in mlperf_resnet8x2.5",
    _named,
    Preprocessing(32, 255.0),
  ),
)
