"""What a student weighs: counted from its variables, not from a checkpoint that also holds optimizer slots."""

import math

import tf_keras as keras
from tensorflow_model_optimization.python.core.quantization.keras import quantize_layer, quantize_wrapper

from tfkd.quantization.schemes import quantizer_bits

_FLOAT_BYTES = 4


def sizes(model: keras.Model) -> dict[str, int]:
  """Counts parameters and bytes of a float or quantized model.

  Args:
    model: `tf_keras` model.

  Returns:
    dict of int: "parameters": weights of the network, batch normalisation included, quantizers' ranges not;
    "trainable_parameters": those without batch normalisation's moving averages, as papers count; "float32_bytes": four
    bytes for each of all; "packed_bytes": quantized kernels at their own bits, with one float32 scale for
    each, or one for each output channel where the grid is per channel, and everything else as float32. Equal to
    float32_bytes for a float model.
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


def _quantized_kernels(model):
  for layer in model.layers:
    if isinstance(layer, quantize_wrapper.QuantizeWrapper):
      for kernel, quantizer, _ in layer._weight_vars:
        yield kernel, quantizer


def _network_weights(model):
  """Variables of the float network, each once."""
  weights = {}
  for layer in model.layers:
    if isinstance(layer, quantize_layer.QuantizeLayer):
      continue
    if isinstance(layer, quantize_wrapper.QuantizeWrapper):
      found = [kernel for kernel, _, _ in layer._weight_vars] + layer.layer.weights
    else:
      found = layer.weights
    weights.update((id(v), v) for v in found)
  return weights.values()


def _num_scales(kernel, quantizer):
  return kernel.shape[-1] if getattr(quantizer, "per_axis", False) else 1
