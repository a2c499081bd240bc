"""The weights of a TFLite file, put on the grid of the training.

TensorFlow's converter knows two grids: weights of up to four bits become int4 with levels -7..7, others, and kernels
that layers share, int8 with -127..127. A student of three bits was trained with levels -3..3, and 1/3 is no multiple
of 1/7.
"""

import math

import numpy as np
from absl import logging

_OPERANDS = {  # Which inputs of an operation are its features, its kernel and its bias.
  "CONV_2D": (0, 1, 2),
  "DEPTHWISE_CONV_2D": (0, 1, 2),
  "FULLY_CONNECTED": (0, 1, 2),
  "TRANSPOSE_CONV": (2, 1, 3),
}
_INT4_LEVELS, _INT8_LEVELS = 7, 127
_TIE = 1e-4


def on_trained_grid(content, bits):
  """Gives the kernels of a file the levels that they were trained with.

  Args:
    content: bytes of a TFLite file of a quantized student.
    bits: bits of a weight, 2..8: levels -(2^(bits - 1) - 1) .. 2^(bits - 1) - 1.

  Returns:
    bytes, as many: of kernels the levels and their scales are others, and with these the scales of biases.
  """
  from ai_edge_litert import schema_py_generated as schema

  content = bytearray(content)
  model = schema.Model.GetRootAs(content, 0)
  done = {}  # Ratios by buffer, which tensors may share.
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
  return bytes(content)


def _kernels(model, graph, schema):
  """Of the operations on integers, {index of the kernel's tensor: set of the indices of the biases used with it}."""
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
    # One weight for each scale lies on any grid, such as a batch normalisation's.
    is_scale = math.prod(tensor.ShapeAsNumpy()) == tensor.Quantization().ScaleLength()
    if graph.Tensors(features).Type() == schema.TensorType.INT8 and is_constant and not is_scale:
      found.setdefault(kernel, set()).update({bias} - {-1})
  return found


def _regrid(model, tensor, levels, done, schema):
  """Changes a kernel's integers and scales in place; returns by what its scales were multiplied, float32 [scales]."""
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
      logging.warning("'%s' has weights between its levels, and keeps the converter's grid.", tensor.Name().decode())
      ratio[:] = 1.0
    trained = np.round(rows / ratio.reshape(-1, *[1] * (rows.ndim - 1)))
    rows[...] = trained  # A view of `found`.
    values[:] = _packed(found.reshape(-1)) if is_int4 else found.reshape(-1)
    done[tensor.Buffer()] = ratio
  quantization.ScaleAsNumpy()[:] *= done[tensor.Buffer()]
  return done[tensor.Buffer()]


def _ratio(row, levels, stored):
  """How many stored levels a trained one is, or 0: the outermost is on the trained grid, but may be an inner level."""
  ratios = (stored / outermost for outermost in range(min(levels, stored), 0, -1))
  return next((ratio for ratio in ratios if _is_on_grid(row, ratio)), 0)


def _is_on_grid(row, ratio):
  exact = np.round(row / ratio) * ratio
  is_tie = np.abs(np.abs(exact - row) - 0.5) < _TIE  # Half a level, which the converter rounds up or down.
  return bool(np.all((np.round(exact) == row) | is_tie))


def _unpacked(values):
  """int8 of int4: two in a byte, the first in its lower half."""
  return (np.stack([values << 4, values], axis=1) >> 4).reshape(-1)


def _packed(values):
  pairs = np.pad(values, (0, len(values) % 2)).reshape(-1, 2)
  return (pairs[:, 0] & 15) | (pairs[:, 1] << 4)
