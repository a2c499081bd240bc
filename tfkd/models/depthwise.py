"""Networks of the Food-11 compression homework: a plain one, and one of depthwise and pointwise convolutions."""

from collections.abc import Sequence

import tensorflow as tf
import tf_keras as keras

from tfkd.models.classifier import classifier
from tfkd.models.family import Family
from tfkd.models.resnet import usual_stem

layers = keras.layers
_MOMENTUM = 0.9

# Output channels of the blocks of each stage; every stage but the first halves height and width in its first block.
_STAGES = ((32,), (64, 64), (128, 128), (160,))


def depthwise_cnn(
  num_classes: int = 11,
  input_shape: tuple[int, int, int] = (128, 128, 3),
  stages: Sequence[Sequence[int]] = _STAGES,
  name: str = "depthwise_cnn",
) -> keras.Model:
  """Builds a network of depthwise-separable blocks, with 59,851 weights for eleven classes (the limit is 60,000).

  A convolution of 16 channels, then stages of blocks (see `depthwise_block`). The outputs of the stages are layers
  `layer1` to `layer4`, with the height and width of ResNet-18's stages on the same image, so that they can be compared.
  As in ResNet-18, images of more than 64 pixels are halved twice before the first stage.
  Source: Howard et al. 2017, arXiv:1704.04861.

  Args:
    num_classes: size of the output, >= 2.
    input_shape: (height, width, channels).
    stages: tuple of tuples of int, the channels of each stage's blocks.
    name: name of the model.

  Returns:
    A `tf_keras` functional model from images to logits [batch, num_classes].

  Raises:
    ValueError: fewer than two classes.
  """
  inputs = keras.Input(input_shape, name="images")
  large = usual_stem(input_shape) == "imagenet"
  x = _normalized(_convolution(16, 3, 2 if large else 1, "conv1")(inputs), "conv1")
  if large:
    x = layers.MaxPooling2D(3, 2, padding="same", name="pool1")(x)
  for stage, blocks in enumerate(stages, 1):
    for block, channels in enumerate(blocks):
      stride = 2 if stage > 1 and block == 0 else 1
      end = f"layer{stage}" if block + 1 == len(blocks) else None
      x = depthwise_block(x, channels, stride, f"layer{stage}_block{block}", end)
  return classifier(inputs, x, num_classes, name)


def plain_cnn(
  num_classes: int = 11, input_shape: tuple[int, int, int] = (128, 128, 3), name: str = "plain_cnn"
) -> keras.Model:
  """Builds the sample student of the homework: four 3x3 convolutions, 47,787 weights for eleven classes.

  Convolutions of 32 / 32 / pool / 64 / pool / 32 / pool channels without padding, each followed by batch normalisation
  and ReLU; then the mean over positions and a dense layer. The last convolution has 32 channels; in years with
  a limit of 100,000 weights it had 100. Outputs before pooling are called `relu0` to `relu3`.

  Args:
    num_classes: size of the output, >= 2.
    input_shape: (height, width, channels), of at least 30 x 30 pixels.
    name: name of the model.

  Returns:
    A `tf_keras` functional model from images to logits [batch, num_classes].

  Raises:
    ValueError: fewer than two classes, or images below 30 x 30 pixels.
  """
  if min(input_shape[:2]) < 30:
    raise ValueError(f"height and width must be at least 30; got input_shape={tuple(input_shape)}.")
  x = inputs = keras.Input(input_shape, name="images")
  for i, channels in enumerate((32, 32, 64, 32)):
    x = layers.Conv2D(channels, 3, name=f"conv{i}")(x)
    x = layers.ReLU(name=f"relu{i}")(layers.BatchNormalization(momentum=_MOMENTUM, name=f"bn{i}")(x))
    if i > 0:
      x = layers.MaxPooling2D(name=f"pool{i}")(x)
  return classifier(inputs, x, num_classes, name)


def depthwise_block(x: tf.Tensor, channels: int, stride: int, name: str | None, end: str | None = None) -> tf.Tensor:
  """A 3x3 convolution of each channel, then a 1x1 convolution across them; batch normalisation and ReLU after each.

  Args:
    x: float [batch, height, width, channels_in].
    channels: channels of the output.
    stride: 1, or 2 to halve height and width.
    name: prefix of the layers' names.
    end: name of the last layer; by default after `name`.

  Returns:
    float [batch, ceil(height / stride), ceil(width / stride), channels].
  """
  depthwise = layers.DepthwiseConv2D(
    3, stride, padding="same", use_bias=False, depthwise_initializer="he_normal", name=f"{name}_depthwise"
  )
  x = _normalized(depthwise(x), f"{name}_depthwise")
  return _normalized(_convolution(channels, 1, 1, f"{name}_pointwise")(x), f"{name}_pointwise", end)


def _convolution(channels, kernel, stride, name):
  return layers.Conv2D(
    channels, kernel, stride, padding="same", use_bias=False, kernel_initializer="he_normal", name=name
  )


def _normalized(x, name, end=None):
  """Batch normalisation and ReLU."""
  x = layers.BatchNormalization(momentum=_MOMENTUM, name=f"{name}_bn")(x)
  return layers.ReLU(name=end or f"{name}_relu")(x)


FAMILIES = (
  Family("depthwise_cnn", "depthwise_cnn", lambda match: depthwise_cnn),
  Family("plain_cnn", "plain_cnn", lambda match: plain_cnn),
)
