"""Splits layers whose parts are rounded separately in an integer file, before they are quantized."""

from collections.abc import Collection, Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfkd.ops import graph

layers = keras.layers
_FUSED_ACTIVATIONS = ("linear", "relu")  # As an argument of a layer: rounded once, after the activation.
_OWN_QUANTIZERS = ("softmax", "sigmoid", "tanh", "gelu")  # tfmot also rounds the inputs of these.


@keras.utils.register_keras_serializable(package="tfkd")
class AffineNormalization(layers.BatchNormalization):
  """Batch normalisation that does not fold into a convolution, computed as a depthwise convolution in inference.

  The depthwise convolution has an integer form. Its kernel has one weight per channel, which one scale per channel
  represents exactly.
  """

  def call(self, inputs: tf.Tensor, training: bool | tf.Tensor | None = None, **kwargs: Any) -> tf.Tensor:
    if training is None or tf.is_tensor(training) or training:
      return super().call(inputs, training=training, **kwargs)
    scale = tf.math.rsqrt(self.moving_variance + self.epsilon)
    if self.gamma is not None:
      scale *= self.gamma
    offset = -self.moving_mean * scale
    if self.beta is not None:
      offset += self.beta
    shape = tf.shape(inputs)
    maps = inputs if inputs.shape.rank == 4 else tf.reshape(inputs, [shape[0], -1, 1, inputs.shape[-1]])
    outputs = tf.nn.depthwise_conv2d(maps, scale[None, None, :, None], [1, 1, 1, 1], "VALID") + offset
    return outputs if inputs.shape.rank == 4 else tf.reshape(outputs, shape)


# HDF5 files refer to wrapped layers by their unqualified class names.
keras.saving.get_custom_objects()["AffineNormalization"] = AffineNormalization


def decompose(model: keras.Model, kept: Collection[str]) -> keras.Model:
  """Returns a model with the same outputs and weights in which every layer is rounded as a whole.

  A separable convolution becomes two layers, `<name>_depthwise` and `<name>`; a layer with an activation that LiteRT
  does not fuse becomes `<name>_linear` and `<name>`; batch normalisation becomes an `AffineNormalization`.

  Args:
    model: functional or built `Sequential` `tf_keras` model; it is not changed.
    kept: names of layers that are not split: float layers, and batch normalisations that fold into the layer before
      them.

  Returns:
    `model` itself if nothing has to be split; otherwise a new functional model, in which the last layer of each chain
    has the name of the original layer.
  """
  parts = {layer.name: None if layer.name in kept else _parts(layer) for layer in model.layers}
  if not any(parts.values()):
    return model
  made = {}

  def replace(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    made[layer.name] = parts[layer.name] or [graph.copy_of(layer)]
    return made[layer.name]

  split = graph.rebuild(model, replace)
  for layer in model.layers:
    if layer.name in made:
      _set_weights(made[layer.name], layer)
  return split


def _parts(layer: keras.layers.Layer) -> list[keras.layers.Layer] | None:
  """Returns the layers that replace a layer, or None if it is not split."""
  if isinstance(layer, layers.SeparableConv2D):
    depthwise, pointwise = _separated(layer)
    return [depthwise, *(_parts(pointwise) or [pointwise])]
  if type(layer) is layers.BatchNormalization:
    return [AffineNormalization.from_config(layer.get_config())]
  if not is_split(layer):
    return None
  activation, name = layer.activation, activation_name(layer.activation)
  linear = graph.copy_of(layer, activation="linear", name=f"{layer.name}_linear")
  after = layers.ReLU(6.0, name=layer.name) if name == "relu6" else layers.Activation(activation, name=layer.name)
  after.trainable = layer.trainable
  return [linear, after]


def is_split(layer: keras.layers.Layer) -> bool:
  """Returns whether a layer's activation becomes a separate layer because LiteRT does not fuse it."""
  activation = getattr(layer, "activation", None)
  if isinstance(layer, layers.Activation) or activation is None:
    return False
  kept = ("linear",) if isinstance(layer, layers.Conv2DTranspose) else _FUSED_ACTIVATIONS + _OWN_QUANTIZERS
  return activation_name(activation) not in kept


def activation_name(activation: Any) -> str:
  """Returns the name of an activation function or layer, as used by tfmot and in messages."""
  return getattr(activation, "__name__", type(activation).__name__)


def is_plain_relu(layer: keras.layers.Layer) -> bool:
  """Returns whether a layer is a ReLU layer without slope and threshold, so that its outputs are not negative."""
  return isinstance(layer, layers.ReLU) and not layer.negative_slope and not layer.threshold


def _separated(layer: keras.layers.SeparableConv2D) -> tuple[keras.layers.DepthwiseConv2D, keras.layers.Conv2D]:
  """Returns a separable convolution as two layers without weights yet."""
  config = layer.get_config()
  shared = {key: config[key] for key in ("trainable", "dtype", "data_format", "dilation_rate")}
  depthwise = layers.DepthwiseConv2D(
    name=f"{layer.name}_depthwise",
    use_bias=False,
    **shared,
    **{key: config[key] for key in ("kernel_size", "strides", "padding", "depth_multiplier")},
    **{f"depthwise_{key}": config[f"depthwise_{key}"] for key in ("initializer", "regularizer", "constraint")},
  )
  shared.pop("dilation_rate")
  kept = ("filters", "activation", "use_bias", "activity_regularizer")
  kept += ("bias_initializer", "bias_regularizer", "bias_constraint", "name")
  pointwise = layers.Conv2D(
    kernel_size=1,
    **shared,
    **{key: config[key] for key in kept},
    **{f"kernel_{key}": config[f"pointwise_{key}"] for key in ("initializer", "regularizer", "constraint")},
  )
  return depthwise, pointwise


def _set_weights(parts: Sequence[keras.layers.Layer], layer: keras.layers.Layer) -> None:
  """Distributes the weights of a layer over its parts."""
  weights = layer.get_weights()
  for part in parts:
    count = len(part.weights)
    part.set_weights(weights[:count])
    weights = weights[count:]
