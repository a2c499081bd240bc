"""Counts parameters and bytes from a student's variables, not from a checkpoint, which also holds optimizer slots."""

import math
from typing import Any

import numpy as np
import tf_keras as keras
from tensorflow_model_optimization.python.core.quantization.keras import quantize_layer, quantize_wrapper
from tensorflow_model_optimization.python.core.sparsity.keras.pruning_wrapper import collect_prunable_layers

from tfkd.quantization.learned_quantizers import LearnedStepWeights
from tfkd.quantization.schemes import Quantizer, quantizer_bits
from tfkd.quantization.wrappers import quantized_kernels

_FLOAT_BYTES = 4


def sizes(model: keras.Model) -> dict[str, int]:
  """Counts parameters and bytes of a float or quantized model.

  Args:
    model: `tf_keras` model.

  Returns:
    dict: "parameters", the weights of the network, including batch normalisation but not the quantizers' ranges;
    "trainable_parameters", the same without the moving averages of batch normalisation, as papers count;
    "nonzero_parameters", those of "parameters" that are not exactly 0 before rounding;
    "float32_bytes", four bytes per parameter; "packed_bytes", quantized kernels with their own bits and one float32
    scale per grid (per kernel or per output channel), and everything else as float32, equal to float32_bytes for a
    float model; "sparse_bytes", the same with each kernel as a bitmap, one bit per weight, and the weights that are not
    0 after rounding, if that is smaller. It is computed, and no format of LiteRT: TFLite files are dense, and become
    smaller when they are compressed.
  """
  quantized = list(quantized_kernels(model))
  weights = _network_weights(model)
  in_kernels = {id(kernel) for kernel, _, _ in quantized}
  others = [v for v in weights if id(v) not in in_kernels]
  dense = sparse = 0
  for kernel, quantizer, ranges in quantized:
    bits, scales = quantizer_bits(quantizer), _FLOAT_BYTES * _num_scales(kernel, quantizer, ranges)
    rounded = np.asarray(quantizer(kernel, False, weights=ranges))
    dense += _bytes(rounded.size, bits) + scales
    sparse += min(_bytes(rounded.size, bits), _sparse_bytes(rounded, bits)) + scales
  for variable in others:
    dense += _FLOAT_BYTES * math.prod(variable.shape)
    sparse += min(_FLOAT_BYTES * math.prod(variable.shape), _float_sparse_bytes(variable))
  parameters = sum(math.prod(v.shape) for v in weights)
  return {
    "parameters": parameters,
    "trainable_parameters": sum(math.prod(v.shape) for v in weights if v.trainable),
    "nonzero_parameters": sum(int(np.count_nonzero(v.numpy())) for v in weights),
    "float32_bytes": _FLOAT_BYTES * parameters,
    "packed_bytes": dense,
    "sparse_bytes": sparse,
  }


def _bytes(count: int, bits: int) -> int:
  return math.ceil(count * bits / 8)


def _sparse_bytes(values: np.ndarray, bits: int) -> int:
  """Returns the bytes of a bitmap of a kernel and of its values other than 0."""
  return _bytes(values.size, 1) + _bytes(int(np.count_nonzero(values)), bits)


def _float_sparse_bytes(variable: Any) -> int:
  is_kernel = variable.shape.rank > 1
  return _sparse_bytes(variable.numpy(), 8 * _FLOAT_BYTES) if is_kernel else _FLOAT_BYTES * math.prod(variable.shape)


def _network_weights(model: keras.Model) -> list[Any]:
  """Returns the variables of the float network without duplicates, and without those of tfmot's pruning."""
  masks = {id(v) for wrapper in collect_prunable_layers(model) for v in wrapper._non_trainable_weights}
  weights = {}
  for layer in model.layers:
    if isinstance(layer, quantize_layer.QuantizeLayer):
      continue
    if isinstance(layer, quantize_wrapper.QuantizeWrapper):
      found = [kernel for kernel, _, _ in layer._weight_vars] + layer.layer.weights
    else:
      found = layer.weights
    weights.update((id(v), v) for v in found if id(v) not in masks)
  return list(weights.values())


def _num_scales(kernel: Any, quantizer: Quantizer, ranges: dict[str, Any]) -> int:
  if isinstance(quantizer, LearnedStepWeights):
    return math.prod(ranges["log_step"].shape)
  return kernel.shape[-1] if getattr(quantizer, "per_axis", False) else 1
