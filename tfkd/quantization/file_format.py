"""Writes models of the TFLite schema as files."""

from typing import Any

import numpy as np


def size_of_file(content: bytes) -> int:
  """Returns the bytes of the file that `tfkd.deploy.to_tflite` makes of the converter's, without metadata."""
  from ai_edge_litert import schema_py_generated as schema

  model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
  shorten_names(model)
  return len(serialized(model, len(content)))


def shorten_names(model: Any) -> None:
  """Shortens the names of tensors of a model of the TFLite schema."""
  for graph in model.subgraphs:
    for tensor in graph.tensors:
      # The converter joins the names of all fused tensors, which would be a large share of a small file.
      tensor.name = tensor.name.partition(b";")[0]


def serialized(model: Any, size: int) -> bytes:
  """Serializes a model of the TFLite schema.

  Unlike the schema's Python writer, this starts constants at multiples of 16 bytes, as kernels expect, and writes equal
  vectors such as zero points once, which makes a file of four-bit weights smaller by a twentieth.
  """
  import flatbuffers
  from ai_edge_litert import schema_py_generated as schema

  class Builder(flatbuffers.Builder):
    def __init__(self, size):
      super().__init__(size)
      self.written = {}

    def CreateNumpyVector(self, x):  # noqa: N802  (flatbuffers' name)
      key = x.dtype.str, x.tobytes()
      if key not in self.written:
        self.written[key] = super().CreateNumpyVector(x)
      return self.written[key]

  class Buffer(schema.BufferT):
    def Pack(self, builder):  # noqa: N802  (the schema's name)
      if self.data is not None:
        content = np.asarray(self.data, np.uint8).tobytes()
        builder.StartVector(1, len(content), 16)
        builder.head -= len(content)
        builder.Bytes[builder.head : builder.head + len(content)] = content
        data = builder.EndVector()
      schema.BufferStart(builder)
      if self.data is not None:
        schema.BufferAddData(builder, data)
      return schema.BufferEnd(builder)

  for number, buffer in enumerate(model.buffers):
    model.buffers[number] = Buffer()
    model.buffers[number].data = buffer.data
  builder = Builder(size)
  builder.Finish(model.Pack(builder), b"TFL3")
  return bytes(builder.Output())
