"""Inputs of eight-bit integers in integer files: their values are quantized without a detour through float32."""

from typing import Any

import numpy as np

from tfkd.quantization.file_format import serialized


def without_casts(content: bytes) -> bytes:
  """Returns an integer file in which no uint8 or int8 input is cast to float32 and then quantized.

  Such an input gets scale 1 and zero point 0, which stand for its values, and the operation that quantized the floats
  reads it. Inputs that other operations read stay as they are.

  Args:
    content: content of a TFLite file.
  """
  from ai_edge_litert import schema_py_generated as schema

  model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
  graph, operators = model.subgraphs[0], schema.BuiltinOperator
  code = {number: entry.builtinCode for number, entry in enumerate(model.operatorCodes)}
  changed = False
  for index in graph.inputs:
    tensor = graph.tensors[index]
    if tensor.type not in (schema.TensorType.UINT8, schema.TensorType.INT8) or _has_scale(tensor):
      continue
    casts = _readers(graph, index)
    if not casts or index in graph.outputs or any(code[op.opcodeIndex] != operators.CAST for op in casts):
      continue
    floats = [int(op.outputs[0]) for op in casts]
    quantized = [op for number in floats for op in _readers(graph, number)]
    is_float = all(graph.tensors[number].type == schema.TensorType.FLOAT32 for number in floats)
    if not is_float or set(floats) & {int(number) for number in graph.outputs}:
      continue
    if not quantized or any(code[op.opcodeIndex] != operators.QUANTIZE for op in quantized):
      continue
    tensor.quantization = schema.QuantizationParametersT()
    tensor.quantization.scale, tensor.quantization.zeroPoint = np.ones(1, np.float32), np.zeros(1, np.int64)
    for op in quantized:
      op.inputs = np.array([index], np.int32)
    graph.operators = [op for op in graph.operators if not any(op is cast for cast in casts)]
    changed = True
  return serialized(model, len(content)) if changed else content


def _has_scale(tensor: Any) -> bool:
  return tensor.quantization is not None and tensor.quantization.scale is not None


def _readers(graph: Any, index: int) -> list[Any]:
  return [op for op in graph.operators if index in list(op.inputs)]
