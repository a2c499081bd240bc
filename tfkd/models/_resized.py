"""Networks that read images of another size than they are given."""

import tf_keras as keras

layers = keras.layers
_RESIZE, _NORMALIZE = "resize", "normalize"


def resized(network, image_shape, mean=0.0, deviation=1.0):
  """Puts a bilinear resize and a normalisation before a network, so that it reads another's images in its own way.

  Args:
    network: functional `tf_keras` model from images to anything.
    image_shape: (height, width, channels) of the images that are given, in [0, 1].
    mean, deviation: number, or one for each channel; the network sees (images - mean) / deviation.

  Returns:
    A functional model whose last layer is the network: its layers are tapped as `<network>/<layer>`.
  """
  height, width, channels = network.input_shape[1:]
  mean, deviation = (list(value) if isinstance(value, tuple) else [value] * channels for value in (mean, deviation))
  inputs = keras.Input(image_shape, name="images")
  x = layers.Resizing(height, width, name=_RESIZE)(inputs)
  scale, offset = [1 / d for d in deviation], [-m / d for m, d in zip(mean, deviation, strict=True)]
  x = layers.Rescaling(scale, offset, name=_NORMALIZE)(x)
  return keras.Model(inputs, network(x), name=f"{network.name}_resized")


def network_of(model):
  """The network inside what `resized` made; any other model is its own."""
  return model.layers[-1] if [layer.name for layer in model.layers[1:3]] == [_RESIZE, _NORMALIZE] else model
