"""Restores the grid of training in the weights of a TFLite file.

TensorFlow's converter has two grids: weights of up to four bits become int4 with levels -7..7; other weights, and
shared kernels, become int8 with -127..127. A student with three bits was trained with levels -3..3, and 1/3 is not a
multiple of 1/7.
"""

import math
from typing import Any

import numpy as np
from absl import logging

_OPERANDS = {  # Positions of features, kernel and bias among the inputs of an operation.
  "CONV_2D": (0, 1, 2),
  "DEPTHWISE_CONV_2D": (0, 1, 2),
  "FULLY_CONNECTED": (0, 1, 2),
  "TRANSPOSE_CONV": (2, 1, 3),
}
_WEIGHTS = {"FLOAT32": np.float32, "FLOAT16": np.float16, "INT8": np.int8, "INT4": np.int8}
_INT4_LEVELS, _INT8_LEVELS = 7, 127
_TIE = 1e-4


def on_trained_grid(content: bytes, bits: int) -> bytes:
  """Returns a file whose kernels have the levels of training.

  Args:
    content: content of a TFLite file of a quantized student.
    bits: bits of a weight, 2..8: levels -(2^(bits - 1) - 1) .. 2^(bits - 1) - 1.

  Returns:
    Content of the same size, with other levels and scales of kernels, and accordingly of biases.
  """
  from ai_edge_litert import schema_py_generated as schema

  changed = bytearray(content)
  model = schema.Model.GetRootAs(changed, 0)
  done: dict[int, np.ndarray] = {}  # Ratios by buffer; tensors may share buffers.
  for graph in map(model.Subgraphs, range(model.SubgraphsLength())):
    kernels = _kernels(model, graph, schema)
    ratios = {kernel: _regrid(model, graph.Tensors(kernel), 2 ** (bits - 1) - 1, done, schema) for kernel in kernels}
    for bias, ratio in {bias: ratios[kernel] for kernel, found in kernels.items() for bias in found}.items():
      tensor = graph.Tensors(bias)
      tensor.Quantization().ScaleAsNumpy()[:] *= ratio
      if tensor.Buffer() not in done:
        done[tensor.Buffer()] = ratio
        sums = model.Buffers(tensor.Buffer()).DataAsNumpy().view(np.int32)
        sums[:] = np.round(sums / ratio)
  return bytes(changed)


def count_zeros(content: bytes) -> tuple[int, int]:
  """Counts the weights of a file that are exactly 0, among its float and integer constants of rank 2 and more.

  Args:
    content: content of a TFLite file.

  Returns:
    Number of zeros and number of weights. Tensors that share a buffer count once.
  """
  from ai_edge_litert import schema_py_generated as schema

  model = schema.Model.GetRootAs(bytearray(content), 0)
  types = {getattr(schema.TensorType, name): dtype for name, dtype in _WEIGHTS.items()}
  counts = {}
  for graph in map(model.Subgraphs, range(model.SubgraphsLength())):
    for tensor in map(graph.Tensors, range(graph.TensorsLength())):
      buffer = model.Buffers(tensor.Buffer())
      if tensor.ShapeLength() < 2 or tensor.Type() not in types or not buffer.DataLength():
        continue
      values = buffer.DataAsNumpy().view(types[tensor.Type()])
      count = math.prod(tensor.ShapeAsNumpy())
      if tensor.Type() == schema.TensorType.INT4:
        values = _unpacked(values)[:count]
      quantization = tensor.Quantization()
      # Kernels have zero point 0; other constants have one for all values.
      zero = quantization.ZeroPoint(0) if quantization and quantization.ZeroPointLength() else 0
      counts[tensor.Buffer()] = count - np.count_nonzero(values != zero), count
  zeros, weights = zip(*counts.values(), strict=True) if counts else ((), ())
  return sum(zeros), sum(weights)


def _kernels(model: Any, graph: Any, schema: Any) -> dict[int, set[int]]:
  """Returns the kernels of integer operations: for the index of each, the indices of the biases used with it."""
  places = {getattr(schema.BuiltinOperator, name): operands for name, operands in _OPERANDS.items()}
  found = {}
  for operator in map(graph.Operators, range(graph.OperatorsLength())):
    code = model.OperatorCodes(operator.OpcodeIndex())
    operands = places.get(max(code.BuiltinCode(), code.DeprecatedBuiltinCode()))
    if operands is None:
      continue
    inputs = [int(index) for index in operator.InputsAsNumpy()] + [-1]  # A bias may be missing.
    features, kernel, bias = (inputs[min(place, len(inputs) - 1)] for place in operands)
    tensor = graph.Tensors(kernel)
    is_constant = model.Buffers(tensor.Buffer()).DataLength() > 0
    # With one weight per scale, as in batch normalisation, every weight is on any grid.
    is_scale = math.prod(tensor.ShapeAsNumpy()) == tensor.Quantization().ScaleLength()
    if graph.Tensors(features).Type() == schema.TensorType.INT8 and is_constant and not is_scale:
      found.setdefault(kernel, set()).update({bias} - {-1})
  return found


def _regrid(model: Any, tensor: Any, levels: int, done: dict[int, np.ndarray], schema: Any) -> np.ndarray:
  """Changes a kernel's integers and scales in place; returns the factors of its scales, float32 [scales]."""
  quantization = tensor.Quantization()
  if tensor.Buffer() not in done:
    values = model.Buffers(tensor.Buffer()).DataAsNumpy().view(np.int8)
    is_int4 = tensor.Type() == schema.TensorType.INT4
    count = math.prod(tensor.ShapeAsNumpy())
    found = (_unpacked(values)[:count] if is_int4 else values).reshape(tensor.ShapeAsNumpy())
    rows = np.moveaxis(found, quantization.QuantizedDimension(), 0) if quantization.ScaleLength() > 1 else found
    stored = _INT4_LEVELS if is_int4 else _INT8_LEVELS
    ratio = np.array([_ratio(row, levels, stored) for row in rows.reshape(quantization.ScaleLength(), -1)], np.float32)
    if not ratio.all():
      logging.warning(
        "'%s' has weights between the levels of training and keeps the converter's grid.", tensor.Name().decode()
      )
      ratio[:] = 1.0
    trained = np.round(rows / ratio.reshape(-1, *[1] * (rows.ndim - 1)))
    rows[...] = trained  # A view of `found`.
    values[:] = _packed(found.reshape(-1)) if is_int4 else found.reshape(-1)
    done[tensor.Buffer()] = ratio
  quantization.ScaleAsNumpy()[:] *= done[tensor.Buffer()]
  return done[tensor.Buffer()]


def _ratio(row: np.ndarray, levels: int, stored: int) -> float:
  """Returns the width of a trained level in stored levels; 0 if the weights are not on the trained grid.

  The converter maps the largest weight to the outermost stored level, but it may be an inner level of training.
  """
  ratios = (stored / outermost for outermost in range(min(levels, stored), 0, -1))
  return next((ratio for ratio in ratios if _is_on_grid(row, ratio)), 0)


def _is_on_grid(row: np.ndarray, ratio: float) -> bool:
  exact = np.round(row / ratio) * ratio
  is_tie = np.abs(np.abs(exact - row) - 0.5) < _TIE  # Half a level, which the converter rounds up or down.
  return bool(np.all((np.round(exact) == row) | is_tie))


def _unpacked(values: np.ndarray) -> np.ndarray:
  """Converts int4 to int8. A byte holds two int4, the first in its lower half."""
  return (np.stack([values << 4, values], axis=1) >> 4).reshape(-1)


def _packed(values: np.ndarray) -> np.ndarray:
  """Inverts `_unpacked`."""
  pairs = np.pad(values, (0, len(values) % 2)).reshape(-1, 2)
  return (pairs[:, 0] & 15) | (pairs[:, 1] << 4)
