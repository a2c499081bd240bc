"""Zeros of pruned kernels: which kernels are pruned, and where."""

from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras

LEAST_SHARE = 0.1
"""Share of exact zeros from which a kernel counts as pruned, unless all of it is zero."""
_KERNELS = ("kernel", "depthwise_kernel", "pointwise_kernel", "recurrent_kernel", "embeddings")


def pruned_kernels(layer: keras.layers.Layer) -> dict[str, tuple[Any, np.ndarray]]:
  """Finds the pruned kernels of a layer, without those of layers inside it except the cell of a recurrent layer.

  A kernel is pruned if at least a tenth of its entries, and not all, are exactly 0. Kernels that their initializer
  makes so (`Identity`) do not count, nor do biases and the parameters of activations and normalizations.

  Args:
    layer: built `tf_keras` layer.

  Returns:
    dict from the prefix of the layer's options for this kernel ("kernel", "depthwise", "pointwise", "recurrent",
    "embeddings") to a pair of the variable and of its zeros, bool of its shape.
  """
  owner, found = getattr(layer, "cell", layer), {}
  for name in _KERNELS:
    prefix = name.removesuffix("_kernel")
    kernel: Any = getattr(owner, name, None)
    is_made_so = isinstance(getattr(owner, f"{prefix}_initializer", None), keras.initializers.Identity)
    if not hasattr(kernel, "assign") or is_made_so:
      continue
    zeros = tf.convert_to_tensor(kernel).numpy() == 0
    if zeros.size and LEAST_SHARE <= zeros.mean() < 1:
      found[prefix] = kernel, zeros
  return found
