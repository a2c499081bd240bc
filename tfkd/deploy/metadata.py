"""What a TFLite file says of itself: JSON in one of its buffers, with a digest of the whole file."""

import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from absl import logging

from tfkd.storage.digests import sha256_of_bytes
from tfkd.storage.files import write_bytes

_NAME = b"TFKD_METADATA"
_DIGEST = "file_sha256"
_ZEROS = "0" * 64  # Stand in the digest's place while it is computed.


def read_metadata(path: str | os.PathLike) -> dict[str, Any]:
  """Reads what `to_tflite` and `write_metadata` wrote into a file.

  Args:
    path: TFLite file.

  Returns:
    dict; see `to_tflite`.

  Raises:
    FileNotFoundError: no file at `path`.
    ValueError: not a TFLite file, one without metadata, or changed since it was written.
  """
  return _unpacked(_content(path), path)[1]


def write_metadata(path: str | os.PathLike, **fields: Any) -> int:
  """Adds fields to the metadata of a file that `to_tflite` wrote, or replaces them; whole or not at all.

  Args:
    path: TFLite file.
    **fields: of JSON, such as accuracy=0.971; numpy's numbers and arrays too.

  Returns:
    int, bytes of the file, whose size changes with its metadata.

  Raises:
    As `read_metadata`; and ValueError where mean and std are no scaling, see `scaling_of`.
  """
  content, found = _unpacked(_content(path), path)
  write_bytes(path, with_metadata(content, found | fields))
  size = os.path.getsize(path)
  logging.info("wrote %s (%d bytes)", path, size)
  return size


def scaling_of(fields: Mapping[str, Any], channels: int | None = None) -> tuple[np.ndarray, np.ndarray] | None:
  """How metadata say that pixels are scaled: (pixel / 255 - mean) / std.

  Args:
    fields: dict with "mean" and "std", each a number or a list of one for each channel.
    channels: int; None for any.

  Returns:
    mean and std, float32 [] or [channels]; None where the fields have neither.

  Raises:
    ValueError: one is missing, they are no finite numbers, std is not positive, or there are other channels.
  """
  given = {name: fields[name] for name in ("mean", "std") if fields.get(name) is not None}
  if not given:
    return None
  if len(given) == 1:
    raise ValueError(
      f"mean and std belong together; got {next(iter(given))} alone: give both, 0 and 1 for pixel / 255."
    )
  try:
    mean, std = (np.squeeze(np.asarray(given[name], np.float32)) for name in ("mean", "std"))
  except (ValueError, TypeError) as error:
    raise ValueError(f"mean and std must be numbers; got {given['mean']!r} and {given['std']!r}.") from error
  sizes = {part.size for part in (mean, std) if part.ndim}
  fits = mean.ndim <= 1 and std.ndim <= 1 and len(sizes) <= 1 and (channels is None or sizes <= {channels})
  if not (fits and np.isfinite(mean).all() and np.isfinite(std).all() and (std > 0).all()):
    expected = "each channel" if channels is None else f"each of {channels} channels"
    raise ValueError(
      f"mean and std must be finite numbers, or one for {expected}, and std > 0; got {given['mean']} and "
      f"{given['std']}."
    )
  return mean, std


def with_metadata(content: bytes, fields: Mapping[str, Any]) -> bytes:
  """Puts metadata in place of what a TFLite file has of it, and shortens the names of its tensors.

  Args:
    content: bytes of the file.
    fields: dict of what JSON can hold, and of numpy's numbers and arrays.

  Returns:
    bytes.

  Raises:
    ValueError: mean and std are no scaling, see `scaling_of`.
  """
  from ai_edge_litert import schema_py_generated as schema

  if fields.get("mean") is not None and fields.get("std") is not None:
    scaling_of(fields)
  text = json.dumps({**fields, _DIGEST: _ZEROS}, separators=(",", ":"), default=_plain)
  model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
  entries = {entry.name: entry for entry in model.metadata or ()}
  if _NAME not in entries:
    entry = schema.MetadataT()
    entry.name, entry.buffer = _NAME, len(model.buffers)
    model.buffers.append(schema.BufferT())
    model.metadata = [*(model.metadata or ()), entry]
    entries[_NAME] = entry
  model.buffers[entries[_NAME].buffer].data = np.frombuffer(text.encode(), np.uint8)
  for graph in model.subgraphs:
    for tensor in graph.tensors:
      # The converter joins the names of all that it fused, which a small file has no room for.
      tensor.name = tensor.name.partition(b";")[0]
  content = _packed(model, len(content))
  return content.replace(_field(_ZEROS), _field(sha256_of_bytes(content)))


def _plain(value):
  if isinstance(value, (np.generic, np.ndarray)):
    return value.tolist()
  raise TypeError(f"metadata must be of what JSON can hold; got a {type(value).__name__}.")


def _packed(model, size):
  """Bytes of a model, with what the schema's Python writer lacks.

  Constants begin at multiples of 16 bytes, as kernels expect. Vectors that are equal, as most zero points are, are
  written once; that takes a twentieth off a file of four bits.
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


def metadata_or_none(path: str | os.PathLike) -> dict[str, Any] | None:
  """As `read_metadata`, with None for a file that never had any.

  Raises:
    FileNotFoundError: no file at `path`.
    ValueError: not a TFLite file, or changed since it was written.
  """
  content = _content(path)
  # Without reading its structure: a file may be of any other program.
  return _unpacked(content, path)[1] if _NAME in content else None


def _content(path):
  if not os.path.isfile(path):
    raise FileNotFoundError(f"no TFLite file at {path}.")
  with open(path, "rb") as file:
    return file.read()


def _unpacked(content, path):
  """The content as it was when its digest was computed, and the fields."""
  try:
    text = _text(content)
    fields = json.loads(text) if text is not None else None
  except Exception as error:  # Of damaged offsets, each of its kind.
    raise ValueError(f"{path} is not a TFLite file, or damaged ({type(error).__name__}: {error}).") from error
  if not isinstance(fields, dict) or _DIGEST not in fields:
    raise ValueError(
      f"{path} has no metadata of tfkd: expected a file by tfkd.deploy.to_tflite, which says what its classes and its "
      "input are."
    )
  digest = str(fields.pop(_DIGEST))
  before = content.replace(_field(digest), _field(_ZEROS))
  if sha256_of_bytes(before) != digest:
    raise ValueError(f"{path} is damaged: its SHA-256 differs from what was written. Export it again.")
  return before, fields


def _field(digest):
  return f'"{_DIGEST}":"{digest}"'.encode()


def _text(content):
  """The JSON, or None where there is none."""
  from ai_edge_litert import schema_py_generated as schema

  if not schema.Model.ModelBufferHasIdentifier(content, 0):
    raise ValueError("it does not begin as one")
  model = schema.Model.GetRootAs(content, 0)
  for number in range(model.MetadataLength()):
    entry = model.Metadata(number)
    if entry.Name() == _NAME:
      data = model.Buffers(entry.Buffer()).DataAsNumpy()
      return data.tobytes().decode()
  return None
