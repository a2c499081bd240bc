"""Where a network is rounded for integer kernels: which tensors exist in the file, and which are fused away.

tfmot's own layout transforms leave kernels before a ReLU layer in float, share one range between the inputs of a
concatenation that others read too, and assume that every batch normalisation folds. Here each layer gets its
`QuantizeConfig` from what LiteRT fuses: a convolution with the batch normalisation behind it, and either with a ReLU.
"""

import copy

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
  layers.InputLayer, layers.Conv2D, layers.DepthwiseConv2D, layers.Dense, layers.BatchNormalization, layers.Add,
  layers.Flatten, layers.Dropout, layers.MaxPooling2D, layers.GlobalAveragePooling2D, layers.ZeroPadding2D,
)  # fmt: skip
_AVERAGE_POOLING = (layers.AveragePooling1D, layers.AveragePooling2D)
_TAKES_ANY_RANGE = (*_FUSES_RELU, layers.BatchNormalization, layers.ReLU, layers.LeakyReLU, *_AVERAGE_POOLING)


class Integers(tfmot.quantization.keras.QuantizeScheme):
  """A scheme whose layers bring their configurations: only the quantization of the model's inputs is left to tfmot."""

  def __init__(self, registry):
    self._registry = registry

  def get_layout_transformer(self):
    return _Inputs()

  def get_quantize_registry(self):
    return _FloatLayers(self._registry)


class _FloatLayers(tfmot.quantization.keras.QuantizeRegistry):
  """Of the layers that stay in float, those whose output is rounded for the layer that reads it.

  An average keeps the range of what it averages; a range of its own could only conflict.
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


def configurations(model, registry):
  """The `QuantizeConfig` of every layer that has one.

  Args:
    model: float `tf_keras` model of the layers that `decompose` leaves.
    registry: tfmot's `QuantizeRegistry` of the scheme.

  Returns:
    dict from layer name to `QuantizeConfig`.
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
      # The converter does not carry a range through pooling, padding and the like into an average and others at once.
      _round_output(found[layer.name])
  return found


def is_known(model):
  """Whether all layers are of kinds whose integer form is known in every order, so that no trial is needed."""
  is_shared = any(len(tensors) > 1 for tensors in graph.readers(model).values())
  one_of_each = len(model.inputs) == len(model.outputs) == 1
  return one_of_each and not is_shared and all(_is_known(layer) for layer in model.layers)


def _is_known(layer):
  if isinstance(layer, (layers.Activation, layers.ReLU)):
    return is_relu(layer)
  plain = activation_name(getattr(layer, "activation", keras.activations.linear)) in ("linear", "relu")
  return type(layer) in _KNOWN and plain


def _without_output(config):
  """A configuration that rounds the same weights, and not what the layer gives."""
  if not getattr(config, "weight_attrs", None):
    return default_8bit_quantize_configs.NoOpQuantizeConfig()
  config.activation_attrs, config.quantize_output = [], False
  return config


def _round_output(config):
  if hasattr(config, "weight_attrs") and not config.activation_attrs:
    config.quantize_output = True


def absorbed(model):
  """Names of the batch normalisations that fold into the convolution before them."""
  fused, read_from = fused_layers(model), graph.producers(model)
  return {
    layer.name
    for layer in model.layers
    if isinstance(layer, layers.BatchNormalization) and all(p.name in fused for p in read_from[layer.name])
  }


def fused_layers(model):
  """Names of the layers whose output is no tensor of the file."""
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
      # A concatenation gives its inputs its own range.
      is_fused = isinstance(layer, _TAKES_ANY_RANGE) and is_linear(layer) or is_relu(layer)
    else:
      is_fused = False
    if is_fused:
      fused.add(layer.name)
  return fused


def is_linear(layer):
  """Whether the layer has no activation function of its own."""
  return getattr(layer, "activation", keras.activations.linear) in (keras.activations.linear, None)


def is_relu(layer):
  """Whether the layer is a ReLU that LiteRT fuses with the layer before it."""
  if isinstance(layer, layers.ReLU):
    return is_plain_relu(layer) and layer.max_value in (None, 6.0)
  return isinstance(layer, layers.Activation) and activation_name(layer.activation) in ("relu", "relu6")
