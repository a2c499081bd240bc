"""Keeps the zeros of pruned kernels in training."""

import base64
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras
from absl import logging
from tensorflow_model_optimization.python.core.quantization.keras import quantize_wrapper

from tfkd.ops.zeros import pruned_kernels

Zeros = Mapping[str, Mapping[str, np.ndarray]]
"""Positions of the zeros of pruned kernels, by layer name and by the prefix of the layer's options for the kernel."""


@keras.saving.register_keras_serializable(package="tfkd")
class KeepZeros(keras.constraints.Constraint):
  """Keeps entries of a kernel at 0, whatever the optimizer adds to them.

  The positions are a part of the configuration, like the options of other constraints, and no variable: 1 bit for each
  entry, compressed. They do not follow from the current zeros, since a weight that an update moves to 0 has to be able
  to leave it.

  Args:
    zeros: bool of the kernel's shape, True where it is 0; or the text that `get_config` makes of it.
    shape: shape of the kernel; read for a text only.
    constraint: another constraint of the same kernel, or its configuration; None for no other.
  """

  def __init__(self, zeros: Any, shape: Any = None, constraint: Any = None):
    self.zeros = _from_text(zeros, shape) if isinstance(zeros, str) else np.asarray(zeros, bool)
    self.constraint = keras.constraints.get(constraint)

  def masked(self, kernel: Any) -> tf.Tensor:
    """Returns the kernel with zeros in their places, which have no gradient."""
    return tf.where(self.zeros, tf.zeros([], kernel.dtype), kernel)  # A product would make -0.0 of negative numbers.

  def __call__(self, kernel: Any) -> tf.Tensor:
    if self.constraint is None:
      return self.masked(kernel)
    return self.masked(self.constraint(self.masked(kernel)))

  def get_config(self) -> dict[str, Any]:
    text = base64.b64encode(zlib.compress(np.packbits(self.zeros).tobytes(), 9)).decode()
    constraint = None if self.constraint is None else keras.constraints.serialize(self.constraint)
    return {"zeros": text, "shape": list(self.zeros.shape), "constraint": constraint}


keras.saving.get_custom_objects()[KeepZeros.__name__] = KeepZeros  # For HDF5 files.


def _from_text(text: str, shape: Any) -> np.ndarray:
  bits = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8)
  return np.unpackbits(bits, count=int(np.prod(shape))).reshape(shape).astype(bool)


def without_zeros(weight: Any) -> Any:
  """Returns a kernel for a step of training: without a gradient where `KeepZeros` constrains it to 0."""
  constraint = getattr(weight, "constraint", None)
  return constraint.masked(weight) if isinstance(constraint, KeepZeros) else weight


def zeros_of(model: keras.Model) -> Zeros:
  """Finds the pruned kernels of the layers of a flat model."""
  found = {layer.name: pruned_kernels(layer) for layer in model.layers}
  return {name: {prefix: zeros for prefix, (_, zeros) in of.items()} for name, of in found.items() if of}


def keeping(layer: keras.layers.Layer, zeros: Zeros) -> dict[str, Any]:
  """Returns the configuration of a layer, with constraints that keep the zeros of its kernels."""
  config = layer.get_config()
  for prefix, places in zeros.get(layer.name, {}).items():
    name = f"{prefix}_constraint"
    config[name] = KeepZeros(places, constraint=config[name])
  return config


def describe(quantized: keras.Model) -> None:
  """Logs which layers keep how many zeros, and which pruned layers cannot."""
  kept = {}
  for layer in quantized.layers:
    constraints = [getattr(weight, "constraint", None) for weight in layer.weights]
    places = [c.zeros.ravel() for c in constraints if isinstance(c, KeepZeros)]
    if places:
      kept[layer.name] = np.mean(np.concatenate(places))
  if kept:
    listed = ", ".join(f"{name} ({share:.0%})" for name, share in kept.items())
    logging.warning("zeros of pruned kernels are kept (keep_zeros=False trains them): %s", listed)
  lost = [layer.name for layer in quantized.layers if any(map(pruned_kernels, _inside(layer)))]
  if lost:
    logging.warning("zeros of pruned kernels are not kept in layers that contain others: %s", ", ".join(lost))


def _inside(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
  """Returns the layers inside a layer whose options are not its own."""
  layer = layer.layer if isinstance(layer, quantize_wrapper.QuantizeWrapper) else layer
  cell = getattr(layer, "cell", None)
  return [part for part in layer._flatten_layers(include_self=False) if part is not cell]
