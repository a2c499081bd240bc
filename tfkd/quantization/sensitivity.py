"""Chooses the bits of each layer: what the rounding of its kernel does to the outputs, and what it saves."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras
from absl import logging

from tfkd.keras3 import as_tf_keras
from tfkd.ops._flatten import flatten
from tfkd.quantization import conversion
from tfkd.quantization._quantize import quantize
from tfkd.quantization.file_format import size_of_file
from tfkd.quantization.inputs import input_batches
from tfkd.quantization.schemes import INT8, parse_scheme

_BATCHES = 4


def sensitivity(model: keras.Model, data: Any, bits: Sequence[int] = (8, 4)) -> dict[str, dict[int, float]]:
  """Measures how much the outputs of a float model change when the kernel of one layer is rounded.

  Args:
    model: functional or `Sequential` `tf_keras` model; one of Keras 3 is converted. It is not changed.
    data: inputs in any form that `model.fit` takes (see `input_batches`); four batches are read. No labels are needed.
    bits: bits of a weight that are tried, each from 2 to 8, on the grids of `w2a8` to `w8a8`.

  Returns:
    dict from layer name (nested models flattened, see `tfkd.models.flatten`) to a dict from bits to noise: the mean
    squared change of the outputs over the variance of the outputs. 0 is no change, and 1 as much as the outputs tell
    examples apart; the largest of several outputs. Layers without kernels that `w8a8` rounds are left out.

  Raises:
    ValueError: bits are out of range, data yields no batch, or `w8a8` cannot quantize the model.
  """
  for number in bits:
    parse_scheme(f"w{number}a8")
  flat = flatten(as_tf_keras(model, "model"))
  batches = [tf.nest.pack_sequence_as(flat._nested_inputs, b) for b in input_batches(flat, data, _BATCHES)]
  if not batches:
    raise ValueError("data yielded no batch: give at least one example.")
  run = tf.function(lambda inputs: tf.nest.flatten(flat(inputs, training=False)))

  def outputs():
    by_output = zip(*map(run, batches), strict=True)
    return [np.concatenate(parts).astype(np.float64).reshape(-1, parts[0].shape[-1]) for parts in by_output]

  expected = outputs()
  found = {}
  for layer in flat.layers:
    kernels = _kernels(layer)
    values = [kernel.numpy() for kernel in kernels]
    if kernels:
      found[layer.name] = {}
    for number in bits if kernels else ():
      for kernel, value in zip(kernels, values, strict=True):
        kernel.assign(_rounded(value, number, has_scales=not isinstance(layer, keras.layers.Dense)))
      found[layer.name][number] = max(map(_noise, outputs(), expected))
    for kernel, value in zip(kernels, values, strict=True):
      kernel.assign(value)
  return found


def bits_by_layer(
  model: keras.Model, data: Any, max_bytes: int, noise: Mapping[str, Mapping[int, float]] | None = None
) -> dict[str, str]:
  """Chooses which layers get four bits, so that the file has at most a number of bytes.

  Layers get four bits in the order of the noise that this adds to the outputs for each byte that it saves.

  Args:
    model, data: see `sensitivity`.
    max_bytes: size of the TFLite file in bytes, without metadata.
    noise: result of `sensitivity` for at least 4 and 8 bits; None measures it.

  Returns:
    dict from layer name to "w4a8", for `quantize`; other layers have eight bits. Empty if eight bits fit.

  Raises:
    ValueError: the file is larger even with four bits in every layer, or see `sensitivity`.
  """
  flat = flatten(as_tf_keras(model, "model"))
  batches = list(input_batches(flat, data, _BATCHES))
  if not batches:
    raise ValueError("data yielded no batch: give at least one example.")
  arrays = [np.concatenate(parts) for parts in zip(*batches, strict=True)]
  given = tf.nest.pack_sequence_as(flat._nested_inputs, arrays)
  noise = sensitivity(flat, given, (8, 4)) if noise is None else noise
  size = size_of_file(conversion.convert(quantize(flat, INT8, calibration_data=given), io="int8"))
  saved = {name: sum(w.numpy().size for w in _kernels(flat.get_layer(name))) // 2 for name in noise}
  order = sorted(saved, key=lambda name: (noise[name][4] - noise[name][8]) / max(saved[name], 1))
  chosen: dict[str, str] = {}
  for name in order:
    if size <= max_bytes:
      break
    size -= saved[name]
    chosen[name] = "w4a8"
  if size > max_bytes:
    raise ValueError(
      f"max_bytes is {max_bytes:,}, but with four bits in every layer the file of '{flat.name}' has about {size:,} "
      "bytes: allow more, or use a smaller network."
    )
  logging.info("four bits in %d of %d layers, about %d bytes: %s", len(chosen), len(saved), size, ", ".join(chosen))
  return chosen


def _kernels(layer: keras.layers.Layer) -> list[tf.Variable]:
  """Returns the kernels of a layer whose bits can be chosen."""
  has_choice = not isinstance(layer, keras.layers.Embedding) and INT8.problem(layer) is None
  return [weight for weight in layer.weights if weight.shape.rank > 1] if has_choice else []


def _rounded(kernel: np.ndarray, bits: int, has_scales: bool) -> np.ndarray:
  """Rounds a kernel to symmetric levels, with a scale for each channel of the last axis or one."""
  axes = tuple(range(kernel.ndim - 1)) if has_scales else None
  step = np.abs(kernel).max(axes, keepdims=True) / (2 ** (bits - 1) - 1)
  return np.round(kernel / np.where(step > 0, step, 1.0)) * step


def _noise(outputs: np.ndarray, expected: np.ndarray) -> float:
  return float(((outputs - expected) ** 2).mean(0).sum() / max(expected.var(0).sum(), 1e-30))
