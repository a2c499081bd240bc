"""Connectors and alignment, which map a student's feature to the shape of the teacher's."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfkd.ops.pooling import average_pool

CONNECTORS = (None, "conv1x1", "conv1x1_bn", "linear")
ALIGNMENTS = (None, "average_pool", "interpolate")
# PyTorch's defaults, which the methods' authors used; Keras' epsilon is 1e-3.
PYTORCH_NORMALIZATION = {"momentum": 0.9, "epsilon": 1e-5}


def connector(
  kind: str | keras.layers.Layer | None, channels: int, rank: int | None = None
) -> keras.layers.Layer | None:
  """Makes a trainable map from a student's feature to a number of channels.

  Args:
    kind: None for no map, "conv1x1" or "conv1x1_bn" (without and with batch normalisation, of PyTorch's epsilon)
      for maps, "linear" for vectors, or a Keras layer, which is copied: every pair of layers has its own connector.
    channels: channels of the teacher's feature.
    rank: number of axes of the student's feature, if known.

  Returns:
    A Keras layer with float32 arithmetic (a given layer keeps its policy), or None.

  Raises:
    ValueError: the kind is unknown, or a convolution is requested for a feature that is not a map.
  """
  if kind in ("conv1x1", "conv1x1_bn") and rank not in (None, 4):
    raise ValueError(f'connector="{kind}" expects a map of 4 axes; got {rank}. Use "linear" for vectors.')
  if isinstance(kind, keras.layers.Layer):
    layer: Any = kind
    return type(layer).from_config(layer.get_config())
  if kind == "linear":
    return keras.layers.Dense(channels, dtype="float32")
  if kind == "conv1x1":
    return keras.layers.Conv2D(channels, 1, dtype="float32")
  if kind == "conv1x1_bn":
    convolution = keras.layers.Conv2D(channels, 1, use_bias=False, dtype="float32")
    return keras.Sequential([convolution, keras.layers.BatchNormalization(**PYTORCH_NORMALIZATION, dtype="float32")])
  if kind is not None:
    raise ValueError(
      f"unknown connector {kind!r}: expected None, a Keras layer, {', '.join(map(repr, CONNECTORS[1:]))}."
    )
  return None


def aligned_size(teacher_shape: Any, student_shape: Any, alignment: str | None) -> tuple[int, int]:
  """Height and width at which two maps are compared.

  Args:
    teacher_shape, student_shape: [batch, height, width, channels], height and width known if they differ.
    alignment: None (they must agree), "average_pool" (the smaller of each side) or "interpolate" (the teacher's).

  Returns:
    (height, width).

  Raises:
    ValueError: the sizes differ and there is no alignment, or one is unknown.
  """
  teacher, student = tuple(teacher_shape[1:3]), tuple(student_shape[1:3])
  if teacher == student:
    return teacher
  if alignment is None:
    raise ValueError(
      f"teacher feature {tuple(teacher_shape)} and student feature {tuple(student_shape)} differ in height and width: "
      'set alignment="average_pool" or "interpolate", or tap other layers.'
    )
  if None in (*teacher, *student):
    raise ValueError(
      f"features {tuple(teacher_shape)} and {tuple(student_shape)} cannot be aligned: their height and width must be "
      "known. Build both models for a fixed image size."
    )
  return teacher if alignment == "interpolate" else tuple(map(min, teacher, student))


def align(feature: tf.Tensor, size: Sequence[int], alignment: str | None) -> tf.Tensor:
  """Resizes a map to a height and width.

  Args:
    feature: float [batch, height, width, channels].
    size: (height, width).
    alignment: "average_pool" (adaptive, also to sizes that do not divide), "interpolate" (bilinear), or None if the
      size is right.

  Returns:
    float [batch, *size, channels].
  """
  if tuple(feature.shape[1:3]) == tuple(size):
    return feature
  return average_pool(feature, size) if alignment == "average_pool" else tf.image.resize(feature, size)


def nearest(feature: tf.Tensor, size: Any) -> tf.Tensor:
  """Resizes a map by nearest neighbour: row i of n takes row floor(i * height / n), as in PyTorch's `interpolate`.

  `tf.image.resize` takes the neighbours of the pixels' centres instead, which are other rows if a map shrinks.

  Args:
    feature: float [batch, height, width, channels].
    size: (height, width), or int32 tensor [2].

  Returns:
    [batch, *size, channels], of the feature's type.
  """
  return tf.raw_ops.ResizeNearestNeighbor(images=feature, size=size, align_corners=False, half_pixel_centers=False)
