"""Chooses which tensors of a network are rounded for integer kernels: those that exist in the file after fusion.

tfmot's layout transforms leave kernels before a ReLU layer in float, share one range between the inputs of a
concatenation even if other layers read them, and assume that every batch normalisation folds. This module derives the
`QuantizeConfig` of each layer from the fusions of LiteRT: a convolution with the batch normalisation after it, and
either of them with a ReLU.
"""

import copy
from collections.abc import Mapping

import tensorflow_model_optimization as tfmot
import tf_keras as keras
from tensorflow_model_optimization.python.core.quantization.keras.default_8bit import (
  default_8bit_quantize_configs,
  default_8bit_transforms,
)
from tensorflow_model_optimization.python.core.quantization.keras.graph_transformations import model_transformer

from tfkd.ops import graph
from tfkd.quantization.decompose import activation_name, is_plain_relu

layers = keras.layers
_FOLDS_NORMALIZATION = (layers.Conv2D, layers.DepthwiseConv2D, layers.SeparableConv2D)
_FUSES_RELU = (layers.Conv2D, layers.DepthwiseConv2D, layers.Dense, layers.Add)
_KNOWN = (
  layers.InputLayer,
  layers.Conv2D,
  layers.DepthwiseConv2D,
  layers.Dense,
  layers.BatchNormalization,
  layers.Add,
  layers.Flatten,
  layers.Dropout,
  layers.MaxPooling2D,
  layers.GlobalAveragePooling2D,
  layers.ZeroPadding2D,
)
_AVERAGE_POOLING = (layers.AveragePooling1D, layers.AveragePooling2D)
_TAKES_ANY_RANGE = (*_FUSES_RELU, layers.BatchNormalization, layers.ReLU, layers.LeakyReLU, *_AVERAGE_POOLING)


class Integers(tfmot.quantization.keras.QuantizeScheme):
  """tfmot scheme for layers that have their configurations already; tfmot only quantizes the inputs of the model.

  Args:
    registry: tfmot's `QuantizeRegistry` for these bits.
  """

  def __init__(self, registry: tfmot.quantization.keras.QuantizeRegistry):
    self._registry = registry

  def get_layout_transformer(self) -> tfmot.quantization.keras.QuantizeLayoutTransform:
    return _Inputs()

  def get_quantize_registry(self) -> tfmot.quantization.keras.QuantizeRegistry:
    return _FloatLayers(self._registry)


class _FloatLayers(tfmot.quantization.keras.QuantizeRegistry):
  """Supports the float layers whose output is rounded for the layer that reads it.

  Average pooling is excluded: it keeps the range of its input, and a second range could conflict with it.
  """

  def __init__(self, registry):
    self._registry = registry

  def supports(self, layer):
    return self._registry.supports(layer) and not isinstance(layer, _AVERAGE_POOLING)

  def get_quantize_config(self, layer):
    return self._registry.get_quantize_config(layer)


class _Inputs(tfmot.quantization.keras.QuantizeLayoutTransform):
  def apply(self, model, layer_quantize_map):
    names = set(layer_quantize_map)
    return model_transformer.ModelTransformer(model, [_FloatInput()], names, layer_quantize_map).transform()


class _FloatInput(default_8bit_transforms.InputLayerQuantize):
  def replacement(self, match_layer):
    is_float = match_layer.layer["config"]["dtype"].startswith("float")
    return super().replacement(match_layer) if is_float else match_layer


def configurations(
  model: keras.Model, registry: tfmot.quantization.keras.QuantizeRegistry
) -> Mapping[str, tfmot.quantization.keras.QuantizeConfig]:
  """Returns the `QuantizeConfig` of every layer that is rounded, by layer name.

  Args:
    model: float `tf_keras` model that `decompose` returned.
    registry: tfmot's `QuantizeRegistry` for the bits of the scheme.
  """
  fused, read_by = fused_layers(model), graph.readers(model)
  found = {}
  for layer in model.layers:
    if isinstance(layer, layers.BatchNormalization):
      found[layer.name] = default_8bit_quantize_configs.Default8BitOutputQuantizeConfig()
    elif registry.supports(layer):
      found[layer.name] = copy.copy(registry.get_quantize_config(layer))
    else:
      continue  # An input, or a layer that stays in float.
    if layer.name in fused:
      found[layer.name] = _without_output(found[layer.name])
    elif any(isinstance(reader, _AVERAGE_POOLING) for readers in read_by[layer.name] for reader in readers):
      # The converter does not propagate one range through pooling or padding into an average and another layer.
      _round_output(found[layer.name])
  return found


def is_known(model: keras.Model) -> bool:
  """Returns whether the model is of layers that convert in every combination, so that no trial conversion is needed."""
  is_shared = any(len(tensors) > 1 for tensors in graph.readers(model).values())
  one_of_each = len(model.inputs) == len(model.outputs) == 1
  return one_of_each and not is_shared and all(_is_known(layer) for layer in model.layers)


def _is_known(layer: keras.layers.Layer) -> bool:
  if isinstance(layer, (layers.Activation, layers.ReLU)):
    return is_relu(layer)
  plain = activation_name(getattr(layer, "activation", keras.activations.linear)) in ("linear", "relu")
  return type(layer) in _KNOWN and plain


def _without_output(
  config: tfmot.quantization.keras.QuantizeConfig,
) -> tfmot.quantization.keras.QuantizeConfig:
  """Returns a configuration that rounds the same weights, but not the output of the layer."""
  if not getattr(config, "weight_attrs", None):
    return default_8bit_quantize_configs.NoOpQuantizeConfig()
  config.activation_attrs, config.quantize_output = [], False
  return config


def _round_output(config: tfmot.quantization.keras.QuantizeConfig) -> None:
  if hasattr(config, "weight_attrs") and not config.activation_attrs:
    config.quantize_output = True


def absorbed(model: keras.Model) -> set[str]:
  """Returns the names of the batch normalisations that fold into the convolution before them."""
  fused, read_from = fused_layers(model), graph.producers(model)
  return {
    layer.name
    for layer in model.layers
    if isinstance(layer, layers.BatchNormalization) and all(p.name in fused for p in read_from[layer.name])
  }


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
    elif all(isinstance(f, layers.Concatenate) for f in followers):
      # The inputs of a concatenation take the range of its output.
      is_fused = isinstance(layer, _TAKES_ANY_RANGE) and is_linear(layer) or is_relu(layer)
    else:
      is_fused = False
    if is_fused:
      fused.add(layer.name)
  return fused


def is_linear(layer: keras.layers.Layer) -> bool:
  """Returns whether the layer has no activation function."""
  return getattr(layer, "activation", keras.activations.linear) in (keras.activations.linear, None)


def is_relu(layer: keras.layers.Layer) -> bool:
  """Returns whether the layer is a ReLU that LiteRT fuses with the layer before it."""
  if isinstance(layer, layers.ReLU):
    return is_plain_relu(layer) and layer.max_value in (None, 6.0)
  return isinstance(layer, layers.Activation) and activation_name(layer.activation) in ("relu", "relu6")
