"""Networks that resize and normalize their images."""

from collections.abc import Sequence

import numpy as np
import tf_keras as keras

from tfkd.preprocessing import Preprocessing

layers = keras.layers
_RESIZE, _NORMALIZE = "resize", "normalize"
_UNCHANGED = Preprocessing()


def resized(network: keras.Model, image_shape: Sequence[int], preprocessing: Preprocessing = _UNCHANGED) -> keras.Model:
  """Puts a bilinear resize and a normalization in front of a network.

  Args:
    network: functional `tf_keras` model from images to anything.
    image_shape: (height, width, channels) of the images that the result reads, in [0, 1].
    preprocessing: scale, mean and std of the images that the network reads. Its size is None or the network's own.

  Returns:
    A functional model whose last layer is the network: its layers are tapped as `<network>/<layer>`.

  Raises:
    ValueError: preprocessing has another size than the network, or mean and std do not fit its channels.
  """
  height, width, channels = network.input_shape[1:]
  size = preprocessing.size
  if size is not None and ((size, size) if isinstance(size, int) else tuple(size)) != (height, width):
    raise ValueError(f"preprocessing.size must be None or the network's own, {(height, width)}; got {size}.")
  mean, std = (np.broadcast_to(part, [channels]).tolist() for part in preprocessing.mean_and_std(channels))
  inputs = keras.Input(tuple(image_shape), name="images")
  x = layers.Resizing(height, width, name=_RESIZE)(inputs)
  scale, offset = [preprocessing.scale / s for s in std], [-m / s for m, s in zip(mean, std, strict=True)]
  x = layers.Rescaling(scale, offset, name=_NORMALIZE)(x)
  return keras.Model(inputs, network(x), name=f"{network.name}_resized")


def network_of(model: keras.Model) -> keras.Model:
  """Returns the network inside a model that `resized` made, and other models unchanged."""
  return model.layers[-1] if [layer.name for layer in model.layers[1:3]] == [_RESIZE, _NORMALIZE] else model
