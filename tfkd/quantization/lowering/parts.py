"""Layers in place of one layer, and their weights."""

from collections.abc import Sequence
from typing import Any

import tf_keras as keras

from tfkd.keras3.activations import hard_sigmoid, leaky_relu
from tfkd.ops.activations import activation_name
from tfkd.quantization.lowering.primitives import ConstantAffine

HARD_SIGMOIDS = {keras.activations.hard_sigmoid: (0.2, 0.5), hard_sigmoid: (1 / 6, 0.5)}
"""Scale and offset of the functions clip(scale x + offset, 0, 1)."""


class Parts:
  """Layers that are called one after the other in place of one layer.

  Args:
    layers: new layers; the last one has the name of the layer that they replace.
    weights: those of `layers` that have the replaced layer's weights, in its order; by default all of them.
  """

  def __init__(self, layers: Sequence[keras.layers.Layer], weights: Sequence[keras.layers.Layer] | None = None):
    self.layers = list(layers)
    self._with_weights = self.layers if weights is None else list(weights)

  def __call__(self, *args: Any, **kwargs: Any) -> Any:
    outputs = self.layers[0](*args, **kwargs)
    for layer in self.layers[1:]:
      outputs = layer(outputs)
    return outputs

  def set_weights_of(self, layer: keras.layers.Layer) -> None:
    """Distributes the weights of the replaced layer, of the same order and number of elements, over the parts."""
    arrays = iter(layer.get_weights())
    for part in self._with_weights:
      part.set_weights([next(arrays).reshape(variable.shape) for variable in part.weights])


def activation_layer(activation: Any, name: str, trainable: bool = True) -> keras.layers.Layer:
  """Returns an activation function as a layer with one integer operation."""
  if activation in HARD_SIGMOIDS:
    scale, offset = HARD_SIGMOIDS[activation]
    after: Any = ConstantAffine([scale], [offset], (0.0, 1.0), name=name)  # Rounding clips to the range.
  elif activation_name(activation) == "relu6":
    after = keras.layers.ReLU(6.0, name=name)
  elif activation is leaky_relu:
    after = keras.layers.LeakyReLU(0.2, name=name)
  else:
    after = keras.layers.Activation(activation, name=name)
  after.trainable = trainable
  return after


def is_plain_relu(layer: keras.layers.Layer) -> bool:
  """Returns whether a layer is a ReLU layer without slope and threshold, so that its outputs are not negative."""
  return isinstance(layer, keras.layers.ReLU) and not layer.negative_slope and not layer.threshold


def is_relu(layer: keras.layers.Layer) -> bool:
  """Returns whether the layer is a ReLU that LiteRT fuses with the layer before it."""
  if isinstance(layer, keras.layers.ReLU):
    return is_plain_relu(layer) and layer.max_value in (None, 6.0)
  return isinstance(layer, keras.layers.Activation) and activation_name(layer.activation) in ("relu", "relu6")
