"""Counts parameters and bytes from a student's variables, not from a checkpoint, which also holds optimizer slots."""

import math
from collections.abc import Iterator
from typing import Any

import tf_keras as keras
from tensorflow_model_optimization.python.core.quantization.keras import quantize_layer, quantize_wrapper

from tfkd.quantization.schemes import Quantizer, quantizer_bits

_FLOAT_BYTES = 4


def sizes(model: keras.Model) -> dict[str, int]:
  """Counts parameters and bytes of a float or quantized model.

  Args:
    model: `tf_keras` model.

  Returns:
    dict: "parameters", the weights of the network, including batch normalisation but not the quantizers' ranges;
    "trainable_parameters", the same without the moving averages of batch normalisation, as papers count;
    "float32_bytes", four bytes per parameter; "packed_bytes", quantized kernels with their own bits and one float32
    scale per grid (per kernel or per output channel), and everything else as float32, equal to float32_bytes for a
    float model.
  """
  quantized = list(_quantized_kernels(model))
  weights = _network_weights(model)
  parameters = sum(math.prod(v.shape) for v in weights)
  in_kernels = sum(math.prod(kernel.shape) for kernel, _ in quantized)
  packed = sum(
    math.ceil(math.prod(kernel.shape) * quantizer_bits(quantizer) / 8) + _FLOAT_BYTES * _num_scales(kernel, quantizer)
    for kernel, quantizer in quantized
  )
  return {
    "parameters": parameters,
    "trainable_parameters": sum(math.prod(v.shape) for v in weights if v.trainable),
    "float32_bytes": _FLOAT_BYTES * parameters,
    "packed_bytes": packed + _FLOAT_BYTES * (parameters - in_kernels),
  }


def _quantized_kernels(model: keras.Model) -> Iterator[tuple[Any, Quantizer]]:
  for layer in model.layers:
    if isinstance(layer, quantize_wrapper.QuantizeWrapper):
      for kernel, quantizer, _ in layer._weight_vars:
        yield kernel, quantizer


def _network_weights(model: keras.Model) -> list[Any]:
  """Returns the variables of the float network without duplicates."""
  weights = {}
  for layer in model.layers:
    if isinstance(layer, quantize_layer.QuantizeLayer):
      continue
    if isinstance(layer, quantize_wrapper.QuantizeWrapper):
      found = [kernel for kernel, _, _ in layer._weight_vars] + layer.layer.weights
    else:
      found = layer.weights
    weights.update((id(v), v) for v in found)
  return list(weights.values())


def _num_scales(kernel: Any, quantizer: Quantizer) -> int:
  return kernel.shape[-1] if getattr(quantizer, "per_axis", False) else 1
