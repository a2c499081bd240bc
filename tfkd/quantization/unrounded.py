"""Runs quantized students without rounding."""

import contextlib
from collections.abc import Iterator
from typing import Any

import tensorflow as tf
import tf_keras as keras
from tensorflow_model_optimization.python.core.quantization.keras import quantize_layer, quantize_wrapper


@contextlib.contextmanager
def without_rounding(model: keras.Model) -> Iterator[None]:
  """Lets a quantized student compute with the weights and the features that it rounds otherwise.

  Functions that were traced before or in the block keep what they were traced with.

  Args:
    model: functional `tf_keras` model, quantized or not.
  """
  replaced: list[tuple[Any, str, Any]] = []

  def replace(owner, name, value):
    replaced.append((owner, name, getattr(owner, name)))
    owner.__dict__[name] = value  # Bypasses Keras' tracking.

  try:
    for layer in model.layers:
      if isinstance(layer, quantize_wrapper.QuantizeWrapper):
        replace(layer, "_weight_vars", [(kernel, _unrounded, ranges) for kernel, _, ranges in layer._weight_vars])
        replace(layer, "_output_quantizers", [_unrounded] * len(layer._output_quantizers))
        for activation in layer._quantize_activations:
          replace(activation, "quantizer", _unrounded)
      elif isinstance(layer, quantize_layer.QuantizeLayer) and layer.quantizer:
        replace(layer, "quantizer", _unrounded)
    yield
  finally:
    for owner, name, value in reversed(replaced):
      owner.__dict__[name] = value


def _unrounded(values: Any, training: Any, weights: Any, **kwargs: Any) -> tf.Tensor:
  return tf.convert_to_tensor(values)
