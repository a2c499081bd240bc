"""Chooses which tensors of a network are rounded for integer kernels: those that exist in the file after fusion.

tfmot's layout transforms leave kernels before a ReLU layer in float, share one range between the inputs of a
concatenation even if other layers read them, and assume that every batch normalisation folds. This module derives the
`QuantizeConfig` of each layer from the fusions of LiteRT: a convolution with the batch normalisation after it, and
either of them with a ReLU.
"""

import copy
from collections.abc import Collection, Mapping
from typing import Any

import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras as keras

from tfkd.ops import graph
from tfkd.ops.activations import activation_name
from tfkd.quantization.configs import OutputConfig, WeightConfig
from tfkd.quantization.lowering import Operation, RoundedOperation, is_relu, lowered, primitives
from tfkd.quantization.lowering.ranges import (
  AVERAGE_POOLING,
  IDENTITY_IN_INFERENCE,
  imposes_range,
  preserves_range,
  readers_in_file,
  takes_any_range,
)

layers = keras.layers
_KERNELS = {  # tfmot's layer whose configuration a class has.
  layers.Conv2D: layers.Conv2D,
  layers.DepthwiseConv2D: layers.DepthwiseConv2D,
  layers.Conv2DTranspose: layers.Conv2DTranspose,
  layers.Dense: layers.Dense,
  primitives.SequenceConv2D: layers.Conv2D,
  primitives.SequenceDepthwiseConv2D: layers.DepthwiseConv2D,
  primitives.SequenceConv2DTranspose: layers.Conv2DTranspose,
}
_FOLDS_NORMALIZATION = (
  layers.Conv2D, layers.DepthwiseConv2D, primitives.SequenceConv2D, primitives.SequenceDepthwiseConv2D,
)  # fmt: skip
_FUSES_RELU = (
  *_FOLDS_NORMALIZATION, layers.Dense, layers.Add, primitives.ConstantAffine, primitives.ChannelAffine,
)  # fmt: skip
_KNOWN = (
  layers.InputLayer, layers.Conv2D, layers.DepthwiseConv2D, layers.Dense, layers.BatchNormalization, layers.Add,
  layers.Multiply, layers.Flatten, layers.Reshape, layers.Dropout, layers.MaxPooling2D, layers.GlobalAveragePooling2D,
  layers.ZeroPadding2D, layers.Cropping2D, layers.AveragePooling2D, layers.Concatenate,
  layers.LeakyReLU, primitives.FrozenStatistics, primitives.ConstantAffine, primitives.ChannelAffine,
  primitives.AverageConvolution,
)  # fmt: skip
_KNOWN_ACTIVATIONS = ("linear", "relu", "relu6", "swish", "silu", "sigmoid", "hard_silu", "softmax", "tanh", "gelu")
# Ranges that LiteRT's operations prescribe, and those of `hard_sigmoid`.
_FIXED_RANGES = {"sigmoid": (0.0, 255 / 256), "softmax": (0.0, 255 / 256), "tanh": (-1.0, 127 / 128)}
_EMBEDDING_BITS = 8
_LONE_NORMALIZATIONS = {
  layers.BatchNormalization: primitives.AffineNormalization,
  primitives.SequenceNormalization: primitives.AffineNormalization,
  primitives.FrozenStatistics: primitives.AffineFrozenStatistics,
}


def configurations(
  model: keras.Model, registry: tfmot.quantization.keras.QuantizeRegistry, kept: Collection[str] = ()
) -> Mapping[str, tfmot.quantization.keras.QuantizeConfig]:
  """Returns the `QuantizeConfig` of every layer with a tensor that is rounded, by layer name.

  Args:
    model: float `tf_keras` model that `lowering.lower` returned.
    registry: tfmot's `QuantizeRegistry` for the bits of the scheme.
    kept: names of layers that stay in float.
  """
  fused, read_by = fused_layers(model), graph.readers(model)
  found = {}
  for layer in model.layers:
    config = None if layer.name in kept else _config(layer, registry)
    if config is not None and layer.name in fused:
      config = _without_output(config)
    elif config is not None and any(
      isinstance(reader, AVERAGE_POOLING) for readers in read_by[layer.name] for reader in readers
    ):
      # The converter does not propagate one range through pooling or padding into an average and another layer.
      _round_output(config)
    if config is not None:
      found[layer.name] = config
  return found


def _config(
  layer: keras.layers.Layer, registry: tfmot.quantization.keras.QuantizeRegistry
) -> tfmot.quantization.keras.QuantizeConfig | None:
  """Returns the configuration of a layer by itself, or None if none of its tensors is rounded."""
  kind = _KERNELS.get(type(layer))
  if kind is not None:
    of_kind = kind(1) if kind is layers.Dense else kind(1, 1) if kind is not layers.DepthwiseConv2D else kind(1)
    return copy.copy(registry.get_quantize_config(of_kind))
  if type(layer) is layers.Embedding:
    return WeightConfig("embeddings", _EMBEDDING_BITS)
  if preserves_range(layer) or not has_one_float_output(layer):
    return None
  return OutputConfig(_fixed_range(layer))


def has_one_float_output(layer: keras.layers.Layer) -> bool:
  """Returns whether a layer of a graph returns one float tensor."""
  outputs = tf.nest.flatten(layer.inbound_nodes[0].outputs)
  return len(outputs) == 1 and outputs[0].dtype.is_floating


def _fixed_range(layer: Any) -> tuple[float, float] | None:
  if isinstance(layer, primitives.ConstantAffine):
    return layer.output_range
  if isinstance(layer, layers.Softmax):
    return _FIXED_RANGES["softmax"]
  if isinstance(layer, layers.Activation):
    return _FIXED_RANGES.get(activation_name(layer.activation))
  if isinstance(layer, Operation):
    return _FIXED_RANGES.get(layer.function.rpartition(".")[2])
  return None


def is_known(model: keras.Model) -> bool:
  """Returns whether a lowered model is of layers that convert in every combination, so that no trial is needed."""
  is_shared = any(len(tensors) > 1 for tensors in graph.readers(model).values())
  one_of_each = len(model.inputs) == len(model.outputs) == 1
  return one_of_each and not is_shared and all(_is_known(layer) for layer in model.layers)


def _is_known(layer: keras.layers.Layer) -> bool:
  if isinstance(layer, layers.ReLU):
    return is_relu(layer)
  is_known_kind = type(layer) in _KNOWN or isinstance(layer, (layers.Activation, *IDENTITY_IN_INFERENCE))
  return is_known_kind and activation_name(getattr(layer, "activation", keras.activations.linear)) in _KNOWN_ACTIVATIONS


def _without_output(
  config: tfmot.quantization.keras.QuantizeConfig,
) -> tfmot.quantization.keras.QuantizeConfig | None:
  """Returns a configuration that rounds the same weights, but not the output of the layer; None without weights."""
  if not getattr(config, "weight_attrs", None):
    return None
  config.activation_attrs, config.quantize_output = [], False
  return config


def _round_output(config: tfmot.quantization.keras.QuantizeConfig) -> None:
  if hasattr(config, "weight_attrs") and not config.activation_attrs:
    config.quantize_output = True


def forms_in_file(model: keras.Model, kept: Collection[str]) -> dict[str, type[keras.layers.Layer]]:
  """Returns the classes of layers whose arithmetic differs in a file, by name.

  These are batch normalisations that do not fold into the convolution before them, and operations on constants.
  """
  fused, read_from = fused_layers(model), graph.producers(model)
  found: dict[str, type[keras.layers.Layer]] = {}
  for layer in model.layers:
    if layer.name in kept:
      continue
    if type(layer) is Operation:
      found[layer.name] = RoundedOperation
    elif type(layer) in _LONE_NORMALIZATIONS and not all(p.name in fused for p in read_from[layer.name]):
      found[layer.name] = _LONE_NORMALIZATIONS[type(layer)]
  return found


def float_output(layer: keras.layers.Layer) -> tfmot.quantization.keras.QuantizeConfig | None:
  """Returns a configuration that rounds the output of a float layer, or None.

  Average pooling is excluded: it keeps the range of its input, and a second range could conflict with it.
  """
  is_rounded = not isinstance(layer, (*AVERAGE_POOLING, layers.InputLayer)) and has_one_float_output(layer)
  return OutputConfig() if is_rounded else None


def is_supported(layer: keras.layers.Layer) -> bool:
  """Returns whether the weights of a layer have an integer form."""
  kinds = (*_KERNELS, layers.Embedding, *_LONE_NORMALIZATIONS)
  return type(layer) in kinds or lowered(layer) is not None


def fused_layers(model: keras.Model) -> set[str]:
  """Returns the names of the layers whose output is not a tensor of the file."""
  read_by, fused = graph.readers(model), set()
  for layer in (node.layer for node in graph.calls(model)):
    tensors = read_by[layer.name]
    if any(len(readers) != 1 for readers in tensors):
      continue
    followers = [reader for (reader,) in tensors]
    if all(isinstance(f, layers.BatchNormalization) for f in followers):
      is_fused = type(layer) in _FOLDS_NORMALIZATION and is_linear(layer)
    elif all(is_relu(f) for f in followers):
      # Batch normalisation is part of a convolution, or becomes one.
      fuses = type(layer) in _FUSES_RELU or isinstance(layer, layers.BatchNormalization)
      is_fused = fuses and is_linear(layer)
    elif all(len(readers_in_file([f], read_by)) == 1 and imposes_range(f, read_by) for f in followers):
      is_fused = takes_any_range(layer)
    else:
      is_fused = False
    if is_fused:
      fused.add(layer.name)
  return fused


def is_linear(layer: keras.layers.Layer) -> bool:
  """Returns whether the layer has no activation function."""
  return getattr(layer, "activation", keras.activations.linear) in (keras.activations.linear, None)
