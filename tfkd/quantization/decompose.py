"""Splits layers whose parts are rounded one by one in an integer file, before they are quantized."""

import tensorflow as tf
import tf_keras as keras

from tfkd.ops import graph

layers = keras.layers
_FUSED_ACTIVATIONS = ("linear", "relu")  # Of the layer's own: rounded once, behind it.
_OWN_QUANTIZERS = ("softmax", "sigmoid", "tanh", "gelu")  # tfmot rounds what they read, too.


@keras.utils.register_keras_serializable(package="tfkd")
class AffineNormalization(layers.BatchNormalization):
  """Batch normalisation that no convolution absorbs: in inference a depthwise convolution, which has an integer form.

  Its kernel has one weight a channel, which a scale by channel represents exactly. In training it is its base class.
  """

  def call(self, inputs, training=None, **kwargs):
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


# HDF5 files have wrapped layers under their plain names.
keras.saving.get_custom_objects()["AffineNormalization"] = AffineNormalization


def decompose(model, kept):
  """A model of the same outputs and weights, in which every layer is rounded as a whole.

  A separable convolution becomes two layers, `<name>_depthwise` and `<name>`; a layer with an activation that LiteRT
  does not fuse `<name>_linear` and `<name>`; batch normalisation an `AffineNormalization`.

  Args:
    model: functional or built `Sequential` `tf_keras` model; it is not changed.
    kept: names of layers that stay as they are: those that stay in float, and the batch normalisations that fold into
      the layer before them.

  Returns:
    `model` itself where there is nothing to split; else a new functional model, whose last layer of each chain has the
    name of the layer that it came from.
  """
  parts = {layer.name: None if layer.name in kept else _parts(layer) for layer in model.layers}
  if not any(parts.values()):
    return model
  made = {}

  def replace(layer):
    made[layer.name] = parts[layer.name] or [graph.copy_of(layer)]
    return made[layer.name]

  split = graph.rebuild(model, replace)
  for layer in model.layers:
    if layer.name in made:
      _set_weights(made[layer.name], layer)
  return split


def _parts(layer):
  """The layers that take a layer's place, or None where it stays."""
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


def is_split(layer):
  """Whether a layer's activation function becomes a layer of its own, since LiteRT does not fuse it."""
  activation = getattr(layer, "activation", None)
  if isinstance(layer, layers.Activation) or activation is None:
    return False
  kept = ("linear",) if isinstance(layer, layers.Conv2DTranspose) else _FUSED_ACTIVATIONS + _OWN_QUANTIZERS
  return activation_name(activation) not in kept


def activation_name(activation):
  """Name of an activation function or layer, as messages and tfmot have it."""
  return getattr(activation, "__name__", type(activation).__name__)


def is_plain_relu(layer):
  """Whether a layer is a ReLU layer without a slope or threshold: none of its outputs is below 0."""
  return isinstance(layer, layers.ReLU) and not layer.negative_slope and not layer.threshold


def _separated(layer):
  config = layer.get_config()
  shared = {key: config[key] for key in ("trainable", "dtype", "data_format", "dilation_rate")}
  depthwise = layers.DepthwiseConv2D(
    name=f"{layer.name}_depthwise", use_bias=False, **shared,
    **{key: config[key] for key in ("kernel_size", "strides", "padding", "depth_multiplier")},
    **{f"depthwise_{key}": config[f"depthwise_{key}"] for key in ("initializer", "regularizer", "constraint")},
  )  # fmt: skip
  shared.pop("dilation_rate")
  kept = ("filters", "activation", "use_bias", "activity_regularizer")
  kept += ("bias_initializer", "bias_regularizer", "bias_constraint", "name")
  pointwise = layers.Conv2D(
    kernel_size=1, **shared, **{key: config[key] for key in kept},
    **{f"kernel_{key}": config[f"pointwise_{key}"] for key in ("initializer", "regularizer", "constraint")},
  )  # fmt: skip
  return depthwise, pointwise


def _set_weights(parts, layer):
  weights = layer.get_weights()
  for part in parts:
    count = len(part.weights)
    part.set_weights(weights[:count])
    weights = weights[count:]
