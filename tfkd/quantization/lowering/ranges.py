"""Which tensors of a file share one range.

The converter extends the range of a concatenation to its inputs, and through pooling, padding and the like to theirs.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras
from tf_keras.src.applications import convnext

from tfkd.keras3 import substitutes
from tfkd.ops.activations import activation_name
from tfkd.quantization.lowering import operations
from tfkd.quantization.lowering.operation import Operation

layers = keras.layers
AVERAGE_POOLING = (layers.AveragePooling1D, layers.AveragePooling2D)
IDENTITY_IN_INFERENCE = (
  layers.Dropout, layers.SpatialDropout1D, layers.SpatialDropout2D, layers.SpatialDropout3D, layers.GaussianNoise,
  layers.GaussianDropout, layers.AlphaDropout, layers.ActivityRegularization, layers.Masking, layers.RandomCrop,
  layers.RandomFlip, layers.RandomRotation, layers.RandomZoom, layers.RandomTranslation, layers.RandomContrast,
  layers.RandomBrightness, layers.RandomHeight, layers.RandomWidth, convnext.StochasticDepth,
  substitutes.StochasticDepth,
)  # fmt: skip
_PRESERVE_RANGE = (
  *IDENTITY_IN_INFERENCE, *AVERAGE_POOLING, layers.InputLayer, layers.Embedding, layers.Flatten, layers.Reshape,
  layers.Permute, layers.RepeatVector, layers.ZeroPadding1D, layers.ZeroPadding2D, layers.ZeroPadding3D,
  layers.Cropping1D, layers.Cropping2D, layers.Cropping3D, layers.CenterCrop, layers.MaxPooling1D, layers.MaxPooling2D,
  layers.MaxPooling3D, layers.GlobalMaxPooling1D, layers.GlobalMaxPooling2D, layers.GlobalMaxPooling3D,
  layers.UpSampling1D,
)  # fmt: skip
_IMPOSE_RANGE = (layers.Concatenate, layers.Maximum, layers.Minimum)
_IMPOSING_OPERATIONS = ("concat", "math.maximum", "math.minimum")


def preserves_range(layer: keras.layers.Layer) -> bool:
  """Returns whether each output value of a layer in inference is one of its inputs, a mean of these, or 0."""
  if isinstance(layer, layers.Activation):
    return activation_name(layer.activation) == "linear"
  if isinstance(layer, layers.UpSampling2D):
    return layer.interpolation == "nearest"
  return isinstance(layer, _PRESERVE_RANGE) or _function(layer) in operations.PRESERVING


def has_two_ranges(layer: keras.layers.Layer, read_by: Mapping[str, list[list[Any]]]) -> bool:
  """Returns whether one of several readers imposes its range on the output of a layer that preserves its input's.

  Without a range of its own such a tensor has the imposed one in the file for all of its readers.

  Args:
    layer: one of a functional model.
    read_by: `graph.readers` of the model.
  """
  if not preserves_range(layer) or isinstance(layer, (layers.InputLayer, layers.Embedding, *IDENTITY_IN_INFERENCE)):
    return False
  found = [readers_in_file(readers, read_by) for readers in read_by[layer.name]]
  return any(len(readers) > 1 and any(imposes_range(r, read_by) for r in readers) for readers in found)


def imposes_range(reader: keras.layers.Layer | None, read_by: Mapping[str, list[list[Any]]]) -> bool:
  """Returns whether a layer, or one of those that read it, extends the range of its output to its inputs."""
  if reader is None:
    return False
  if isinstance(reader, _IMPOSE_RANGE) or _function(reader) in _IMPOSING_OPERATIONS:
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


def has_one_float_output(layer: keras.layers.Layer) -> bool:
  """Returns whether a layer of a graph returns one float tensor."""
  outputs = tf.nest.flatten(layer.inbound_nodes[0].outputs)
  return len(outputs) == 1 and outputs[0].dtype.is_floating


def _function(layer: Any) -> str | None:
  """Returns the name of the function that a layer calls within `tf`, or None for other layers."""
  if operations.is_operation(layer):
    return operations.symbol(layer)
  return layer.function if isinstance(layer, Operation) else None
