"""Restores the grid of training in the weights of a TFLite file.

A student with three bits was trained with levels -3..3, and TensorFlow's converter knows int8 with levels -127..127,
and int4 with -7..7, for which it divides in software: minutes for the kernels of VGG16. Therefore it is given kernels
that are rounded already, as int8. Here kernels get the trained levels and scales, and those of up to four bits become
int4.
"""

import contextlib
import copy
import math
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_model_optimization as tfmot
from absl import logging
from tensorflow_model_optimization.python.core.quantization.keras import quantize_wrapper

from tfkd.quantization.file_format import serialized
from tfkd.quantization.learned_quantizers import LearnedStepWeights
from tfkd.quantization.schemes import quantizer_bits
from tfkd.quantization.wrappers import quantized_kernels

_OPERANDS = {  # Positions of features, kernel and bias among the inputs of an operation.
  "CONV_2D": (0, 1, 2),
  "DEPTHWISE_CONV_2D": (0, 1, 2),
  "FULLY_CONNECTED": (0, 1, 2),
  "TRANSPOSE_CONV": (2, 1, 3),
}
_WITH_INT4 = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
_INT4_BITS, _INT8_BITS, _INT8_LEVELS = 4, 8, 127
_TIE = 1e-4


@contextlib.contextmanager
def rounded_kernels(model: Any) -> Iterator[list[tf.Variable]]:
  """Replaces kernels by their rounded values, in eight bits, for the duration of the block.

  Kernels of tfmot's eight bits stay, since the converter rounds them alike.

  Args:
    model: `tf_keras` model, quantized or not.

  Yields:
    The variables that hold the rounded kernels.
  """
  replaced, made = [], []
  for layer in getattr(model, "layers", ()):
    kernels = layer._weight_vars if isinstance(layer, quantize_wrapper.QuantizeWrapper) else ()
    if any(_is_replaced(quantizer) for _, quantizer, _ in kernels):
      replaced.append((layer, layer._weight_vars))
      made += [_rounded(*kernel) for kernel in kernels]
      # Bypasses Keras' tracking, which would make the variables weights of the model.
      layer.__dict__["_weight_vars"] = made[-len(kernels) :]
  try:
    yield [variable for variable, _, _ in made]
  finally:
    for layer, kernels in replaced:
      layer.__dict__["_weight_vars"] = kernels


def _is_replaced(quantizer: Any) -> bool:
  if isinstance(quantizer, LearnedStepWeights):
    return quantizer.is_symmetric
  return getattr(quantizer, "num_bits", _INT8_BITS) < _INT8_BITS


def _rounded(kernel: tf.Variable, quantizer: Any, ranges: Any) -> tuple[tf.Variable, Any, Any]:
  rounded = tf.Variable(quantizer(kernel, False, weights=ranges), trainable=False, name=kernel.name.partition(":")[0])
  levels = 2 ** (quantizer_bits(quantizer) - 1) - 1
  if isinstance(quantizer, LearnedStepWeights):
    most = levels * tf.exp(ranges["log_step"])
    most = tf.reshape(most, [-1] if quantizer.axes else [])
    ranges = {"min_var": -most, "max_var": most}
    in_eight_bits = tfmot.quantization.keras.quantizers.LastValueQuantizer(
      _INT8_BITS, per_axis=bool(quantizer.axes), symmetric=True, narrow_range=True
    )
  else:
    in_eight_bits = copy.copy(quantizer)
    in_eight_bits.num_bits = _INT8_BITS
  # A range in which a level of training is a whole number of int8 levels.
  factor = _INT8_LEVELS / (_INT8_LEVELS // levels * levels)
  return rounded, in_eight_bits, {name: tf.constant(factor * value.numpy()) for name, value in ranges.items()}


def kernel_bits(model: Any) -> set[int]:
  """Returns the bits of the kernels of a quantized model."""
  return {quantizer_bits(quantizer) for _, quantizer, _ in quantized_kernels(model)}


def on_trained_grid(content: bytes, bits: Collection[int]) -> bytes:
  """Returns a file whose kernels have the levels of training.

  Args:
    content: content of a TFLite file of a quantized student.
    bits: `kernel_bits` of the student, 2..8: levels -(2^(bits - 1) - 1) .. 2^(bits - 1) - 1.

  Returns:
    Content with other levels and scales of kernels, and accordingly of biases.
  """
  from ai_edge_litert import schema_py_generated as schema

  levels = [2 ** (of_kernel - 1) - 1 for of_kernel in sorted(bits)]
  changed = bytearray(_with_own_buffers(content))
  model = schema.Model.GetRootAs(changed, 0)
  done: dict[int, np.ndarray] = {}  # Ratios by buffer; kernels may share one.
  for graph in map(model.Subgraphs, range(model.SubgraphsLength())):
    kernels = _kernels(model, graph, schema)
    ratios = {kernel: _regrid(model, graph.Tensors(kernel), levels, done, schema) for kernel in kernels}
    for bias, ratio in {bias: ratios[kernel] for kernel, found in kernels.items() for bias in found}.items():
      tensor = graph.Tensors(bias)
      tensor.Quantization().ScaleAsNumpy()[:] *= ratio
      if tensor.Buffer() not in done:
        done[tensor.Buffer()] = ratio
        sums = model.Buffers(tensor.Buffer()).DataAsNumpy().view(np.int32)
        sums[:] = np.round(sums / ratio)
  return _in_int4(bytes(changed)) if min(bits) <= _INT4_BITS else bytes(changed)


def _with_own_buffers(content: bytes) -> bytes:
  """Copies buffers that kernels share with other tensors: the converter stores equal constants once."""
  from ai_edge_litert import schema_py_generated as schema

  read = schema.Model.GetRootAs(content, 0)
  model = schema.ModelT.InitFromObj(read)
  before = len(model.buffers)
  for kernels, others in _kernels_and_others(read, model, schema, tuple(_OPERANDS)):
    if others:
      model.buffers.append(copy.copy(model.buffers[kernels[0].buffer]))
      for tensor in kernels:
        tensor.buffer = len(model.buffers) - 1
  return content if len(model.buffers) == before else serialized(model, len(content))


def _in_int4(content: bytes) -> bytes:
  """Stores kernels of small levels in half a byte each, where LiteRT's operation reads them."""
  from ai_edge_litert import schema_py_generated as schema

  read = schema.Model.GetRootAs(content, 0)
  model = schema.ModelT.InitFromObj(read)
  for kernels, others in _kernels_and_others(read, model, schema, _WITH_INT4):
    buffer = model.buffers[kernels[0].buffer]
    levels = buffer.data.view(np.int8)
    if not others and np.abs(levels).max() < 2 ** (_INT4_BITS - 1):
      buffer.data = _packed(levels).view(np.uint8)
      for tensor in kernels:
        tensor.type = schema.TensorType.INT4
  return serialized(model, len(content))


def _kernels_and_others(
  read: Any, model: Any, schema: Any, names: tuple[str, ...]
) -> list[tuple[list[Any], list[Any]]]:
  """Returns, for each buffer of a kernel, the kernels that it is shared by, and the other tensors.

  Args:
    read: file as `schema.Model`.
    model: the same file as `schema.ModelT`, whose tensors are returned.
    schema: module of the file format.
    names: operations whose kernels are wanted.
  """
  found: dict[int, tuple[list[Any], list[Any]]] = {}
  kernels = [set(_kernels(read, read.Subgraphs(number), schema, names)) for number in range(read.SubgraphsLength())]
  for graph, of_graph in zip(model.subgraphs, kernels, strict=True):
    for index, tensor in enumerate(graph.tensors):
      found.setdefault(tensor.buffer, ([], []))[index not in of_graph].append(tensor)
  return [(of_buffer, others) for of_buffer, others in found.values() if of_buffer]


def _kernels(model: Any, graph: Any, schema: Any, names: tuple[str, ...] = tuple(_OPERANDS)) -> dict[int, set[int]]:
  """Returns the kernels of integer operations: for the index of each, the indices of the biases used with it."""
  places = {getattr(schema.BuiltinOperator, name): _OPERANDS[name] for name in names}
  found = {}
  for operator in map(graph.Operators, range(graph.OperatorsLength())):
    code = model.OperatorCodes(operator.OpcodeIndex())
    operands = places.get(max(code.BuiltinCode(), code.DeprecatedBuiltinCode()))
    if operands is None:
      continue
    inputs = [int(index) for index in operator.InputsAsNumpy()] + [-1]  # A bias may be missing.
    features, kernel, bias = (inputs[min(place, len(inputs) - 1)] for place in operands)
    tensor = graph.Tensors(kernel)
    buffer = model.Buffers(tensor.Buffer())
    if graph.Tensors(features).Type() != schema.TensorType.INT8 or not buffer.DataLength():
      continue
    # Weights are on any grid if each has its own scale, as in batch normalisation, or if all are equal, as in a mean.
    is_scale = math.prod(tensor.ShapeAsNumpy()) == tensor.Quantization().ScaleLength()
    values = buffer.DataAsNumpy()
    if not is_scale and (values != values[0]).any():
      found.setdefault(kernel, set()).update({bias} - {-1})
  return found


def _regrid(model: Any, tensor: Any, levels: Sequence[int], done: dict[int, np.ndarray], schema: Any) -> np.ndarray:
  """Changes a kernel's integers and scales in place.

  Args:
    model, tensor, schema: the file, the kernel and the module of the file format.
    levels: the outermost levels that kernels may have, ascending. The first that fits counts: a kernel of more levels
      fits fewer only if it uses no others.
    done: ratios by buffer, which is extended.

  Returns:
    The factors of its scales, float32 [scales].
  """
  quantization = tensor.Quantization()
  if tensor.Buffer() not in done:
    values = model.Buffers(tensor.Buffer()).DataAsNumpy().view(np.int8)
    found = values.reshape(tensor.ShapeAsNumpy())
    rows = np.moveaxis(found, quantization.QuantizedDimension(), 0) if quantization.ScaleLength() > 1 else found
    by_scale = rows.reshape(quantization.ScaleLength(), -1)
    tried = (np.array([_ratio(row, most) for row in by_scale], np.float32) for most in levels)
    ratio = next((found for found in tried if found.all()), np.zeros(len(by_scale), np.float32))
    if not ratio.all():
      logging.warning(
        "'%s' has weights between the levels of training and keeps the converter's grid.", tensor.Name().decode()
      )
      ratio[:] = 1.0
    trained = np.round(rows / ratio.reshape(-1, *[1] * (rows.ndim - 1)))
    rows[...] = trained  # A view of `found`.
    done[tensor.Buffer()] = ratio
  quantization.ScaleAsNumpy()[:] *= done[tensor.Buffer()]
  return done[tensor.Buffer()]


def _ratio(row: np.ndarray, levels: int) -> float:
  """Returns the width of a trained level in stored levels; 0 if the weights are not on the trained grid.

  The converter maps the largest weight to the outermost stored level, but it may be an inner level of training.
  """
  by_converter = (_INT8_LEVELS / outermost for outermost in range(levels, 0, -1))
  widths = [_INT8_LEVELS // levels, *by_converter]  # The first is that of `_rounded`.
  return next((width for width in widths if _is_on_grid(row, width)), 0)


def _is_on_grid(row: np.ndarray, ratio: float) -> bool:
  exact = np.round(row / ratio) * ratio
  is_tie = np.abs(np.abs(exact - row) - 0.5) < _TIE  # Half a level, which the converter rounds up or down.
  return bool(np.all((np.round(exact) == row) | is_tie))


def _packed(values: np.ndarray) -> np.ndarray:
  """Converts int8 to int4. A byte holds two int4, the first in its lower half."""
  pairs = np.pad(values, (0, len(values) % 2)).reshape(-1, 2)
  return (pairs[:, 0] & 15) | (pairs[:, 1] << 4)
