"""Which digit covers each pixel of a drawn house number: a small U-Net learns from a larger one."""

import tf_keras as keras

layers = keras.layers


def u_net(classes, input_shape, widths, convolutions=2):
  """A U-Net [batch, height, width, channels] to logits [batch, height, width, classes].

  Args:
    classes: number of classes.
    input_shape: (height, width, channels) of which 2 ** (len(widths) - 1) divides height and width.
    widths: channels of each resolution, the finest first.
    convolutions: number in each block.
  """
  x = inputs = keras.Input(input_shape)
  skips = []
  for level, width in enumerate(widths):
    if level:
      x = layers.MaxPooling2D(name=f"pool{level}")(x)
    x = _block(x, width, convolutions, f"down{level}")
    skips.append(x)
  for level, width in reversed(list(enumerate(widths[:-1]))):
    x = layers.Conv2DTranspose(width, 2, strides=2, name=f"transposed{level}")(x)
    x = layers.Concatenate(name=f"joined{level}")([skips[level], x])
    x = _block(x, width, convolutions, f"up{level}")
  return keras.Model(inputs, layers.Conv2D(classes, 1, name="logits")(x))


def _block(x, width, convolutions, name):
  for number in range(convolutions):
    x = layers.Conv2D(width, 3, padding="same", use_bias=False, name=f"{name}_conv{number}")(x)
    x = layers.BatchNormalization(momentum=0.9, name=f"{name}_bn{number}")(x)
    x = layers.ReLU(name=f"{name}_relu{number}")(x)
  return x
