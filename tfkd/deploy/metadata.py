"""Metadata of TFLite files: JSON in one of the file's buffers, with a digest of the whole file."""

import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from absl import logging

from tfkd.deploy.tasks import check_name
from tfkd.preprocessing import Preprocessing
from tfkd.quantization.file_format import serialized, shorten_names
from tfkd.storage.digests import sha256_of_arrays, sha256_of_bytes
from tfkd.storage.files import write_bytes

_NAME = b"TFKD_METADATA"
_DIGEST = "file_sha256"
_ZEROS = "0" * 64  # In place of the digest while it is computed.


def read_metadata(path: str | os.PathLike) -> dict[str, Any]:
  """Reads the metadata that `to_tflite` and `write_metadata` wrote into a file.

  Args:
    path: TFLite file.

  Returns:
    JSON values by name; see `to_tflite`.

  Raises:
    FileNotFoundError: there is no file at `path`.
    ValueError: the file is not a TFLite file, has no metadata, or was changed since it was written.
  """
  return _unpacked(_content(path), path)[1]


def write_metadata(path: str | os.PathLike, **fields: Any) -> int:
  """Adds or replaces fields in the metadata of a file that `to_tflite` wrote, atomically.

  Args:
    path: TFLite file.
    **fields: JSON values, such as accuracy=0.971; numpy numbers and arrays are converted.

  Returns:
    New size of the file in bytes.

  Raises:
    FileNotFoundError: see `read_metadata`.
    TypeError: a field is not a JSON value.
    ValueError: see `read_metadata`; mean and std are invalid, see `scaling_of`; or a task is not known, see
      `to_tflite`.
  """
  content, found = _unpacked(_content(path), path)
  write_bytes(path, with_metadata(content, found | fields))
  size = os.path.getsize(path)
  logging.info("wrote %s (%d bytes)", path, size)
  return size


def check_exported_from(path: str | os.PathLike, fields: Mapping[str, Any] | None, student: Any) -> None:
  """Checks that a file was exported from a model with the weights that it has now.

  Args:
    path: TFLite file, for the message.
    fields: its metadata, or None if it has none.
    student: `tf_keras` or Keras 3 model.

  Raises:
    ValueError: the file was exported from another model or other weights.
  """
  if (fields or {}).get("weights_sha256") != sha256_of_arrays(student.get_weights()):
    raise ValueError(f"{path} was not exported from {student.name} with its present weights: export it again.")


def scaling_of(fields: Mapping[str, Any], channels: int | None = None) -> Preprocessing | None:
  """Returns the input scaling that metadata describe.

  Args:
    fields: "mean" and "std", each a number or a list of one per channel, for images (pixel / 255 - mean) / std.
    channels: number of channels of the images; None accepts any.

  Returns:
    `Preprocessing` of images in [0, 1], with mean and std rounded to float32; None if the fields have neither.

  Raises:
    ValueError: one of the two is missing, or they are invalid, see `Preprocessing.mean_and_std`.
  """
  given = {name: fields[name] for name in ("mean", "std") if fields.get(name) is not None}
  if not given:
    return None
  if len(given) == 1:
    raise ValueError(
      f"mean and std belong together; got {next(iter(given))} alone: give both, 0 and 1 for pixel / 255."
    )
  mean, std = Preprocessing(mean=given["mean"], std=given["std"]).mean_and_std(channels)
  return Preprocessing(mean=mean.astype(np.float32).tolist(), std=std.astype(np.float32).tolist())


def with_metadata(content: bytes, fields: Mapping[str, Any]) -> bytes:
  """Returns a TFLite file with other metadata and with shortened names of tensors.

  Args:
    content: content of the file.
    fields: JSON values by name; numpy numbers and arrays are converted.

  Returns:
    Content of the new file.

  Raises:
    TypeError: a field is not a JSON value.
    ValueError: mean and std are invalid, see `scaling_of`, or a task is not known.
  """
  from ai_edge_litert import schema_py_generated as schema

  if fields.get("mean") is not None and fields.get("std") is not None:
    scaling_of(fields)
  if fields.get("task") is not None:
    tasks = fields["task"]
    for task in tasks.values() if isinstance(tasks, Mapping) else [tasks]:
      check_name(task)
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
  shorten_names(model)
  content = serialized(model, len(content))
  return content.replace(_field(_ZEROS), _field(sha256_of_bytes(content)))


def _plain(value: Any) -> Any:
  """Converts values of numpy for JSON."""
  if isinstance(value, (np.generic, np.ndarray)):
    return value.tolist()
  raise TypeError(f"metadata must be JSON values; got {type(value).__name__}.")


def metadata_or_none(path: str | os.PathLike) -> dict[str, Any] | None:
  """Reads metadata as `read_metadata` does, and returns None for a file without any.

  Raises:
    FileNotFoundError: there is no file at `path`.
    ValueError: the file is not a TFLite file, or was changed since it was written.
  """
  content = _content(path)
  # Searches the raw bytes, because files from other programs may not be parseable.
  return _unpacked(content, path)[1] if _NAME in content else None


def _content(path: str | os.PathLike) -> bytes:
  if not os.path.isfile(path):
    raise FileNotFoundError(f"no TFLite file at {path}.")
  with open(path, "rb") as file:
    return file.read()


def _unpacked(content: bytes, path: str | os.PathLike) -> tuple[bytes, dict[str, Any]]:
  """Returns the content that its digest was computed from, and the fields."""
  try:
    text = _text(content)
    fields = json.loads(text) if text is not None else None
  except Exception as error:  # Damaged offsets raise errors of many types.
    raise ValueError(f"{path} is not a TFLite file, or damaged ({type(error).__name__}: {error}).") from error
  if not isinstance(fields, dict) or _DIGEST not in fields:
    raise ValueError(
      f"{path} has no metadata of tfkd: expected a file by tfkd.deploy.to_tflite, which has labels and input scaling."
    )
  digest = str(fields.pop(_DIGEST))
  before = content.replace(_field(digest), _field(_ZEROS))
  if sha256_of_bytes(before) != digest:
    raise ValueError(f"{path} is damaged: its SHA-256 differs from what was written. Export it again.")
  return before, fields


def _field(digest: str) -> bytes:
  return f'"{_DIGEST}":"{digest}"'.encode()


def _text(content: bytes) -> str | None:
  """Returns the JSON of a file, or None."""
  from ai_edge_litert import schema_py_generated as schema

  if not schema.Model.ModelBufferHasIdentifier(content, 0):
    raise ValueError("wrong identifier")
  model = schema.Model.GetRootAs(content, 0)
  for number in range(model.MetadataLength()):
    entry = model.Metadata(number)
    if entry.Name() == _NAME:
      data = model.Buffers(entry.Buffer()).DataAsNumpy()
      return data.tobytes().decode()
  return None
