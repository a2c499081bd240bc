"""Counts the zeros among the weights of a TFLite file."""

import math

import numpy as np

_WEIGHTS = {"FLOAT32": np.float32, "FLOAT16": np.float16, "INT8": np.int8, "INT4": np.int8}


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
        values = (
          np.stack([values << 4, values], axis=1).reshape(-1)[:count] >> 4
        )  # Two to a byte, the lower half first.
      quantization = tensor.Quantization()
      # Kernels have zero point 0; other constants have one for all values.
      zero = quantization.ZeroPoint(0) if quantization and quantization.ZeroPointLength() else 0
      counts[tensor.Buffer()] = count - np.count_nonzero(values != zero), count
  zeros, weights = zip(*counts.values(), strict=True) if counts else ((), ())
  return sum(zeros), sum(weights)
