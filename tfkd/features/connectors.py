"""Connectors and alignment, which map a student's feature to the shape of the teacher's."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfkd.ops.pooling import average_pool

CONNECTORS = (None, "project", "project_bn")
# Names of the same maps in the papers, which are about maps and vectors.
_ALIASES = {"conv1x1": "project", "linear": "project", "conv1x1_bn": "project_bn"}
ALIGNMENTS = (None, "average_pool", "interpolate")
# PyTorch's defaults, which the methods' authors used; Keras' epsilon is 1e-3.
PYTORCH_NORMALIZATION = {"momentum": 0.9, "epsilon": 1e-5}


def connector(kind: str | keras.layers.Layer | None, channels: int) -> keras.layers.Layer | None:
  """Makes a trainable map from a student's feature to a number of channels.

  Args:
    kind: None for no map; "project" or "project_bn" (without and with batch normalisation, of PyTorch's epsilon) for a
      linear map of the last axis of a vector, a sequence or a map; or a Keras layer, which is copied: every pair of
      layers has its own connector. "conv1x1" and "linear" are other names of "project", "conv1x1_bn" of "project_bn".
    channels: channels of the teacher's feature.

  Returns:
    A Keras layer with float32 arithmetic (a given layer keeps its policy), or None.

  Raises:
    ValueError: the kind is unknown.
  """
  if isinstance(kind, keras.layers.Layer):
    layer: Any = kind
    return type(layer).from_config(layer.get_config())
  name = _ALIASES.get(kind, kind) if isinstance(kind, str) else kind
  if name is None:
    return None
  if name == "project":
    return keras.layers.Dense(channels, dtype="float32")
  if name == "project_bn":
    dense = keras.layers.Dense(channels, use_bias=False, dtype="float32")
    return keras.Sequential([dense, keras.layers.BatchNormalization(**PYTORCH_NORMALIZATION, dtype="float32")])
  raise ValueError(
    f"unknown connector {kind!r}: expected None, a Keras layer, {', '.join(map(repr, (*CONNECTORS[1:], *_ALIASES)))}."
  )


def aligned_size(teacher_shape: Any, student_shape: Any, alignment: str | None) -> tuple[int, ...]:
  """Positions at which two sequences or maps are compared: their length, or their height and width.

  Args:
    teacher_shape, student_shape: [batch, ..., channels] of equal rank, with known positions if these differ.
    alignment: None (they must agree), "average_pool" (the smaller of each side) or "interpolate" (the teacher's).

  Returns:
    (length,) or (height, width); of more axes of positions only if they agree.

  Raises:
    ValueError: the sizes differ and there is no alignment, or one is unknown.
  """
  teacher, student = tuple(teacher_shape[1:-1]), tuple(student_shape[1:-1])
  if teacher == student:
    return teacher
  if alignment is None or len(teacher) > 2:
    advice = 'set alignment="average_pool" or "interpolate", or tap other layers.'
    raise ValueError(
      f"teacher feature {tuple(teacher_shape)} and student feature {tuple(student_shape)} differ in "
      f"{'height and width' if len(teacher) == 2 else 'length' if len(teacher) == 1 else 'their positions'}: "
      f"{advice if len(teacher) <= 2 else 'tap layers that agree, because only sequences and maps can be aligned.'}"
    )
  if None in (*teacher, *student):
    raise ValueError(
      f"features {tuple(teacher_shape)} and {tuple(student_shape)} cannot be aligned: their positions must be known. "
      "Build both models for a fixed length or image size."
    )
  return teacher if alignment == "interpolate" else tuple(map(min, teacher, student))


def align(feature: tf.Tensor, size: Sequence[int], alignment: str | None) -> tf.Tensor:
  """Resizes a sequence or map to other positions.

  Args:
    feature: float [batch, time, channels] or [batch, height, width, channels].
    size: (time,) or (height, width).
    alignment: "average_pool" (adaptive, also to sizes that do not divide), "interpolate" (linear along each axis), or
      None if the size is right.

  Returns:
    float [batch, *size, channels].
  """
  if tuple(feature.shape[1:-1]) == tuple(size):
    return feature
  if len(size) == 1:
    return tf.squeeze(align(feature[:, None], (1, *size), alignment), 1)
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
