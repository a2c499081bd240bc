"""The network of the SVHN homework: seven 3x3 convolutions and one dense layer."""

import functools

import tf_keras as keras

from tfkd.models.family import FACTOR, Family, scaled

layers = keras.layers


def svhn_cnn(
  num_classes: int = 10, input_shape: tuple[int, int, int] = (32, 32, 3), width: int = 16, name: str = "svhn_cnn"
) -> keras.Model:
  """Builds the network of the homework, which is the teacher and, quantized, the student.

  Convolutions of `width` / pool / 2 width, 2 width / pool / 4 width, 4 width / pool / 8 width, 8 width / average pool
  4x4 / dense. Every convolution is 3x3 and followed by batch normalisation and ReLU; names are `conv0`, `bn0`, `relu0`
  up to 6, and `logits`. At the default width 292,026 weights in kernels and the dense bias,
  293,882 with batch normalisation.

  Args:
    num_classes: size of the output, >= 2.
    input_shape: (height, width, channels) of images scaled to [0, 1]; height and width are multiples of 32.
    width: channels of the first convolution.
    name: name of the model.

  Returns:
    A `tf_keras` functional model from images to logits [batch, num_classes].

  Raises:
    ValueError: fewer than two classes, or height or width is not a multiple of 32.
  """
  if num_classes < 2:
    raise ValueError(f"num_classes must be at least 2; got {num_classes}.")
  if any(side is None or side % 32 for side in input_shape[:2]):
    raise ValueError(f"height and width must be multiples of 32; got input_shape={tuple(input_shape)}.")
  x = inputs = keras.Input(input_shape, name="images")
  channels = (width, 2 * width, 2 * width, 4 * width, 4 * width, 8 * width, 8 * width)
  for i, filters in enumerate(channels):
    # Without bias, since batch normalization follows.
    x = layers.Conv2D(filters, 3, padding="same", use_bias=False, name=f"conv{i}")(x)
    # With Keras' default 0.99, moving statistics would need about 500 steps to approach those of training batches.
    x = layers.BatchNormalization(momentum=0.9, name=f"bn{i}")(x)
    x = layers.ReLU(name=f"relu{i}")(x)
    if i in (0, 2, 4):
      x = layers.MaxPooling2D(name=f"pool{i}")(x)
  x = layers.AveragePooling2D(4, name="average_pool")(x)
  x = layers.Flatten(name="flatten")(x)
  # Losses read float32 logits under mixed precision too.
  outputs = layers.Dense(num_classes, dtype="float32", name="logits")(x)
  return keras.Model(inputs, outputs, name=name)


def _named(match):
  width = scaled(16, match)
  return functools.partial(svhn_cnn, width=width, name=match[0]) if width else None


FAMILIES = (Family(f"svhn_cnn{FACTOR}", "svhn_cnn or svhn_cnnx<factor of the width>, as in svhn_cnnx0.5", _named),)
