"""Which tensors of a file share one range.

The converter extends the range of a concatenation to its inputs, and through pooling, padding and the like to theirs.
"""

import collections
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras
from tf_keras.src.applications import convnext

from tfkd.keras3 import substitutes
from tfkd.ops import graph
from tfkd.ops.activations import activation_name
from tfkd.quantization.lowering import operations, primitives
from tfkd.quantization.lowering.operation import Operation
from tfkd.quantization.lowering.parts import is_relu

layers = keras.layers
AVERAGE_POOLING = (layers.AveragePooling1D, layers.AveragePooling2D)
IDENTITY_IN_INFERENCE = (
  layers.Dropout, layers.SpatialDropout1D, layers.SpatialDropout2D, layers.SpatialDropout3D, layers.GaussianNoise,
  layers.GaussianDropout, layers.AlphaDropout, layers.ActivityRegularization, layers.Masking, layers.RandomCrop,
  layers.RandomFlip, layers.RandomRotation, layers.RandomZoom, layers.RandomTranslation, layers.RandomContrast,
  layers.RandomBrightness, layers.RandomHeight, layers.RandomWidth, convnext.StochasticDepth,
  substitutes.StochasticDepth,
)  # fmt: skip
REARRANGEMENTS = (
  layers.Flatten, layers.Reshape, layers.Permute, layers.ZeroPadding1D, layers.ZeroPadding2D, layers.Cropping1D,
  layers.Cropping2D,
)  # fmt: skip
"""Layers whose outputs are their inputs in other places, and zeros."""
KEEP_SIGN = (
  *IDENTITY_IN_INFERENCE, *REARRANGEMENTS, *AVERAGE_POOLING, layers.RepeatVector, layers.UpSampling1D,
  layers.UpSampling2D, layers.MaxPooling1D, layers.MaxPooling2D, layers.GlobalMaxPooling1D, layers.GlobalMaxPooling2D,
  layers.GlobalAveragePooling1D, layers.GlobalAveragePooling2D, layers.Add, layers.Average, layers.Maximum,
  layers.Minimum, layers.Concatenate,
)  # fmt: skip
"""Layers without weights whose outputs are not negative if none of their inputs is, and whose arithmetic is exact to
float32's last digits in any file."""
_PRESERVE_RANGE = (
  *IDENTITY_IN_INFERENCE, *AVERAGE_POOLING, layers.InputLayer, layers.Embedding, layers.Flatten, layers.Reshape,
  layers.Permute, layers.RepeatVector, layers.ZeroPadding1D, layers.ZeroPadding2D, layers.ZeroPadding3D,
  layers.Cropping1D, layers.Cropping2D, layers.Cropping3D, layers.CenterCrop, layers.MaxPooling1D, layers.MaxPooling2D,
  layers.MaxPooling3D, layers.GlobalMaxPooling1D, layers.GlobalMaxPooling2D, layers.GlobalMaxPooling3D,
  layers.UpSampling1D,
)  # fmt: skip
# In a float model; what they become takes any range as well.
_TAKE_ANY_RANGE = (
  layers.Conv1D, layers.Conv2D, layers.DepthwiseConv1D, layers.DepthwiseConv2D, layers.SeparableConv1D,
  layers.SeparableConv2D, layers.Dense, layers.Add, layers.BatchNormalization, layers.ReLU, layers.LeakyReLU,
  *AVERAGE_POOLING, primitives.ConstantAffine, primitives.ChannelAffine, primitives.AverageConvolution,
)  # fmt: skip
# The converter keeps the range of a concatenation at its output if only these read it.
_KEEP_RANGE_IN_PLACE = (
  layers.Conv2D, layers.DepthwiseConv2D, layers.SeparableConv2D, layers.Conv2DTranspose, layers.BatchNormalization,
  layers.ReLU, layers.Add, layers.Multiply, layers.Concatenate, layers.MaxPooling2D, layers.AveragePooling2D,
  layers.GlobalAveragePooling2D, layers.ZeroPadding2D, layers.UpSampling2D, layers.Cropping2D,
)  # fmt: skip
_IMPOSE_RANGE = (layers.Concatenate, layers.Maximum, layers.Minimum)
_IMPOSING_OPERATIONS = ("concat", "stack", "math.maximum", "math.minimum")


def preserves_range(layer: keras.layers.Layer) -> bool:
  """Returns whether each output value of a layer in inference is one of its inputs, a mean of these, or 0."""
  if isinstance(layer, layers.Activation):
    return activation_name(layer.activation) == "linear"
  if isinstance(layer, layers.UpSampling2D):
    return layer.interpolation == "nearest"
  return isinstance(layer, _PRESERVE_RANGE) or _function(layer) in operations.PRESERVING


def takes_any_range(layer: Any) -> bool:
  """Returns whether LiteRT computes a layer's output in any range, so that it can be the one of a concatenation."""
  activation = activation_name(getattr(layer, "activation", None) or keras.activations.linear)
  return is_relu(layer) or isinstance(layer, _TAKE_ANY_RANGE) and activation in ("linear", "relu")


def imposed_edges(model: keras.Model, kept: Collection[str]) -> dict[int, list[Any]]:
  """Finds inputs of concatenations and the like that would not be computed in two ranges in a file, as they should be.

  The converter requantizes a tensor for a concatenation if the tensor and the concatenation have each their own range.
  It fails to do so in two cases. A tensor without a range of its own, such as the output of pooling, gets the
  concatenation's, for its other readers too. And if the concatenation is reshaped, its range is moved behind the
  reshape, so that it is computed in the range of one of its inputs.

  Args:
    model: functional model.
    kept: names of layers that stay in float.

  Returns:
    dict from the id of a node to the tensors that it should read from an operation that changes the range.
  """
  read_by, nodes = graph.readers(model), graph.calls(model)
  made_by = {id(tensor): node for node in nodes for tensor in tf.nest.flatten(node.outputs)}
  readers: dict[int, list[Any]] = collections.defaultdict(list)
  for node in nodes:
    for tensor in node.keras_inputs:
      readers[id(tensor)].append(node.layer)
  for tensor in model.outputs:
    readers[id(tensor)].append(None)

  def is_wrong(tensor: Any, is_moved: bool) -> bool:
    while id(tensor) in made_by and isinstance(made_by[id(tensor)].layer, IDENTITY_IN_INFERENCE):
      (tensor,) = made_by[id(tensor)].keras_inputs
    maker = tensor._keras_history.layer
    if maker.name in kept or not tensor.dtype.is_floating:
      return False
    is_shared = len(readers_in_file(readers[id(tensor)], read_by)) > 1
    has_no_range = preserves_range(maker) and not isinstance(maker, (layers.InputLayer, *AVERAGE_POOLING))
    return is_shared and has_no_range or is_moved and (is_shared or not takes_any_range(maker))

  found: dict[int, list[Any]] = {}
  for node in nodes:
    if node.layer.name not in kept and imposes_range(node.layer, read_by):
      outputs = [r for tensor in tf.nest.flatten(node.outputs) for r in readers_in_file(readers[id(tensor)], read_by)]
      is_moved = not all(isinstance(reader, _KEEP_RANGE_IN_PLACE) for reader in outputs)
      tensors = [tensor for tensor in node.keras_inputs if is_wrong(tensor, is_moved and _is_imposing(node.layer))]
      found |= {id(node): tensors} if tensors else {}
  return found


def imposes_range(reader: keras.layers.Layer | None, read_by: Mapping[str, list[list[Any]]]) -> bool:
  """Returns whether a layer, or one of those that read it, extends the range of its output to its inputs."""
  if reader is None:
    return False
  if _is_imposing(reader):
    return True
  outputs = [readers_in_file(readers, read_by) for readers in read_by[reader.name]]
  return preserves_range(reader) and len(outputs) == 1 and any(imposes_range(r, read_by) for r in outputs[0])


def readers_in_file(readers: Sequence[Any], read_by: Mapping[str, list[list[Any]]]) -> list[Any]:
  """Returns the readers of a tensor; layers that a file does not have are replaced by the readers of their outputs."""
  found = []
  for reader in readers:
    is_absent = isinstance(reader, IDENTITY_IN_INFERENCE)
    outputs = [r for tensor in read_by[reader.name] for r in tensor] if is_absent else []
    found += readers_in_file(outputs, read_by) if is_absent else [reader]
  return found


def _is_imposing(layer: Any) -> bool:
  return isinstance(layer, _IMPOSE_RANGE) or _function(layer) in _IMPOSING_OPERATIONS


def _function(layer: Any) -> str | None:
  """Returns the name of the function that a layer calls within `tf`, or None for other layers."""
  if operations.is_operation(layer):
    return operations.symbol(layer)
  return layer.function if isinstance(layer, Operation) else None
