"""Layers that are computed as several, or as others, in an integer file: a rule for each class of Keras."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tf_keras as keras
from tf_keras.src.applications import convnext, inception_resnet_v2

from tfkd.keras3 import substitutes
from tfkd.keras3.activations import leaky_relu
from tfkd.ops import graph
from tfkd.ops.activations import activation_name
from tfkd.quantization.lowering import compound, primitives
from tfkd.quantization.lowering.parts import HARD_SIGMOIDS, Parts, activation_layer

layers = keras.layers
_FUSED_ACTIVATIONS = ("linear", "relu")  # As an argument of a layer: rounded once, after the activation.
_KERNEL = ("initializer", "regularizer", "constraint")


def lowered(layer: keras.layers.Layer) -> Parts | None:
  """Returns the parts that replace a layer, or None if an integer file computes the layer as it is."""
  rule = RULES.get(type(layer))
  if rule is not None:
    return rule(layer)
  return _split(layer) if is_split(layer) else None


def is_split(layer: keras.layers.Layer) -> bool:
  """Returns whether a layer's activation becomes a separate layer because LiteRT does not fuse it."""
  activation = getattr(layer, "activation", None)
  if isinstance(layer, layers.Activation) or not callable(activation) or not hasattr(layer, "kernel_initializer"):
    return isinstance(layer, layers.DepthwiseConv2D) and activation_name(activation) not in _FUSED_ACTIVATIONS
  kept = ("linear",) if isinstance(layer, layers.Conv2DTranspose) else _FUSED_ACTIVATIONS
  return activation_name(activation) not in kept


def _split(layer: keras.layers.Layer) -> Parts:
  linear = graph.copy_of(layer, activation="linear", name=f"{layer.name}_linear")
  return Parts([linear, activation_layer(layer.activation, layer.name, layer.trainable)])


def _with_activation(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
  return _split(layer).layers if is_split(layer) else [layer]


def _activation(layer: keras.layers.Activation) -> Parts | None:
  if layer.activation not in HARD_SIGMOIDS and layer.activation is not leaky_relu:
    return None
  return Parts([activation_layer(layer.activation, layer.name, layer.trainable)])


def _separable(layer: Any) -> Parts:
  """Returns a separable convolution as a depthwise one and one of kernel size 1."""
  config = layer.get_config()
  shared = {key: config[key] for key in ("trainable", "dtype", "data_format")}
  is_sequence = isinstance(layer, layers.SeparableConv1D)
  size = [(1, *config[key]) if is_sequence else config[key] for key in ("kernel_size", "strides", "dilation_rate")]
  depthwise, pointwise = (
    (primitives.SequenceDepthwiseConv2D, primitives.SequenceConv2D)
    if is_sequence
    else (layers.DepthwiseConv2D, layers.Conv2D)
  )
  if is_sequence:  # Depthwise convolutions take one stride for both axes; the height is 1.
    size[1] = (config["strides"][0],) * 2
  first = depthwise(
    name=f"{layer.name}_depthwise",
    use_bias=False,
    kernel_size=size[0],
    strides=size[1],
    dilation_rate=size[2],
    **shared,
    **{key: config[key] for key in ("padding", "depth_multiplier")},
    **{f"depthwise_{key}": config[f"depthwise_{key}"] for key in _KERNEL},
  )
  kept = ("filters", "activation", "use_bias", "activity_regularizer", "name")
  kept += tuple(f"bias_{key}" for key in _KERNEL)
  second = pointwise(
    kernel_size=1,
    **shared,
    **{key: config[key] for key in kept},
    **{f"kernel_{key}": config[f"pointwise_{key}"] for key in _KERNEL},
  )
  return Parts([first, *_with_activation(second)])


def _sequence_convolution(kind: type[keras.layers.Layer]) -> Callable[[Any], Parts]:
  def rule(layer: Any) -> Parts:
    config = {key: value for key, value in layer.get_config().items() if key not in ("batch_input_shape", "groups")}
    if getattr(layer, "groups", 1) != 1:
      config["groups"] = layer.groups
    before = []
    if config["padding"] == "causal":
      steps = config["dilation_rate"][0] * (config["kernel_size"][0] - 1)
      before = [layers.ZeroPadding1D((steps, 0), name=f"{layer.name}_pad")]
      config["padding"] = "valid"
    for key in ("kernel_size", "dilation_rate", "strides"):
      config[key] = (1, *_tuple(config[key]))
    if kind is primitives.SequenceDepthwiseConv2D:
      config["strides"] = config["strides"][1:] * 2  # One stride for both axes; the height is 1.
      config = {key: value for key, value in config.items() if not key.startswith("kernel_") or key == "kernel_size"}
      config.pop("filters", None)
    if config.get("output_padding") is not None:
      config["output_padding"] = (0, *_tuple(config["output_padding"]))
    new = kind.from_config({key: value for key, value in config.items() if value is not None})
    return Parts([*before, *_with_activation(new)])

  return rule


def _tuple(value: Any) -> tuple[int, ...]:
  return tuple(value) if isinstance(value, (tuple, list)) else (value,)


def _rescaling(layer: Any) -> Parts | None:
  scale, offset = np.asarray(layer.scale, np.float64), np.asarray(layer.offset, np.float64)
  return _affine(layer, scale, offset)


def _normalization(layer: Any) -> Parts | None:
  """Returns the affine function of a `Normalization`, as Keras computes it: by at least its epsilon."""
  mean, variance = (np.asarray(part, np.float64) for part in (layer.mean, layer.variance))
  std = np.maximum(np.sqrt(variance), keras.backend.epsilon())
  scale, offset = (std, mean) if layer.invert else (1 / std, -mean / std)
  return _affine(layer, scale, offset)


def _affine(layer: Any, scale: np.ndarray, offset: np.ndarray) -> Parts | None:
  channels = layer.input_shape[-1]
  is_of_channels = all(part.size == 1 or part.size == part.shape[-1] == channels for part in (scale, offset))
  if not is_of_channels:
    return None
  return Parts([primitives.ConstantAffine(scale, offset, name=layer.name)], weights=[])


def _layer_scale(layer: Any) -> Parts:
  scale = primitives.ChannelAffine(True, False, name=layer.name)
  scale.trainable = layer.trainable
  return Parts([scale])


def _custom_scale(layer: Any) -> Parts:
  return compound.ScaledSumParts(layer)


def _at_each_step(layer: Any) -> Parts | None:
  """Returns the dense layer of a `TimeDistributed`, which applies to the last axis anyway; None for other layers."""
  if type(layer.layer) is not layers.Dense:
    return None
  dense = graph.copy_of(layer.layer, name=layer.name)
  dense.trainable = layer.trainable and layer.layer.trainable
  return Parts(_with_activation(dense))


RULES: dict[type, Callable[[Any], Parts | None]] = {
  layers.Activation: _activation,
  layers.SeparableConv2D: _separable,
  layers.SeparableConv1D: _separable,
  layers.Conv1D: _sequence_convolution(primitives.SequenceConv2D),
  layers.DepthwiseConv1D: _sequence_convolution(primitives.SequenceDepthwiseConv2D),
  layers.Conv1DTranspose: _sequence_convolution(primitives.SequenceConv2DTranspose),
  layers.Rescaling: _rescaling,
  layers.Normalization: _normalization,
  layers.LayerNormalization: compound.layer_normalization,
  layers.MultiHeadAttention: compound.attention,
  layers.Attention: compound.dot_attention,
  layers.EinsumDense: compound.einsum_dense,
  convnext.LayerScale: _layer_scale,
  substitutes.LayerScale: _layer_scale,
  inception_resnet_v2.CustomScaleLayer: _custom_scale,
  substitutes.ScaledSum: _custom_scale,
  layers.Add: compound.sum_of_tensors,
  layers.Average: compound.sum_of_tensors,
  layers.PReLU: compound.slope,
  layers.TimeDistributed: _at_each_step,
}
