"""Adaptive average pooling to any smaller size."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf


def average_pool(feature: tf.Tensor, size: Sequence[Any]) -> tf.Tensor:
  """Averages a map over a grid of regions.

  Region i of n along a side of length l covers floor(i l / n) to ceil((i + 1) l / n), as in PyTorch's
  AdaptiveAvgPool2d; regions overlap where n does not divide l.

  Args:
    feature: float [batch, height, width, channels], height and width known.
    size: (height, width) of the result, at most those of the feature.

  Returns:
    [batch, *size, channels], of the feature's dtype.
  """
  height, width = feature.shape[1:3]
  if (height, width) == tuple(size):
    return feature
  if height % size[0] == 0 and width % size[1] == 0:
    window = (height // size[0], width // size[1])
    return tf.nn.avg_pool2d(feature, window, window, "VALID")
  rows, columns = (
    tf.constant(_averages(n, length), feature.dtype) for n, length in zip(size, (height, width), strict=True)
  )
  return tf.einsum("ih,bhwc,jw->bijc", rows, feature, columns)


def _averages(regions, length):
  """Returns the matrix [regions, length] with the averaging weights of one region per row."""
  matrix = np.zeros((regions, length))
  for i in range(regions):
    start, stop = i * length // regions, -(-(i + 1) * length // regions)
    matrix[i, start:stop] = 1.0 / (stop - start)
  return matrix
