"""Students as TFLite files."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from tfkd.deploy.metadata import with_metadata
from tfkd.quantization import conversion, input_batches, is_uncalibrated, scheme_of
from tfkd.quantization.grid import on_trained_grid
from tfkd.storage.digests import sha256_of_arrays
from tfkd.storage.files import write_bytes

_RANGE_BATCHES = 4


def to_tflite(
  student: Any,
  path: str | os.PathLike,
  *,
  io_dtype: str | None = None,
  representative_data: Any = None,
  allow_float: bool = False,
  labels: Sequence[str] | None = None,
  metadata: Mapping[str, Any] | None = None,
) -> int:
  """Writes a student as a TFLite file that LiteRT runs, with its metadata.

  `w8a8` students become all-integer files: int8 in, int8 out, no float tensor inside, which is checked on the file.
  `w2a8` to `w7a8` students likewise, with weights of up to four bits stored as int4, LiteRT's smallest for
  convolutions, on the grid that they were trained on. A float student becomes an all-integer file with
  `representative_data`, which set its ranges (post-training quantization), and a float32 file without. For fewer than
  eight feature bits, which no LiteRT kernel computes in, the file is float32 and reproduces the student's arithmetic;
  `pack` writes such a student small.

  The file has one signature, "serving_default", of batch one: from "images" to "logits", or, where the student has
  several inputs or outputs, with the names of their layers.

  Args:
    student: functional or `Sequential` model of `tf_keras`, or a float one of Keras 3 (TensorFlow backend), with inputs
      of fixed size, in float32 arithmetic.
    path: where to write; replaced whole or not at all.
    io_dtype: "int8" or "float32", type of float inputs and outputs; None stands for int8 where the file computes in
      integers. With float32, integer files quantize their inputs and dequantize their outputs.
    representative_data: inputs in any form that `student.fit` takes, to quantize a float student after its training;
      four batches are used, see `tfkd.quantization.input_batches`.
    allow_float: let operations without an integer form stay in float32, as those of `float_layers` do.
    labels: list of str, names of the classes.
    metadata: dict of what JSON can hold, kept in the file. Names that `python -m tfkd.deploy` knows: "mean" and "std"
      of each channel, for images (pixel / 255 - mean) / std; "accuracy" in [0, 1] and "data", its data set.

  Returns:
    int, bytes of the file.

  Raises:
    TypeError: the student is no functional or `Sequential` model, or labels are one string.
    ValueError: an argument does not fit the student, TFLite lacks one of its operations, its converter crashed, or
      operations stay in float and may not; their tensors are named.
  """
  _check_model(student)
  scheme = scheme_of(student)
  trained_integer = scheme is not None and scheme.export_kind == "tflite"
  integer = trained_integer or representative_data is not None
  _check_arguments(student, scheme, io_dtype, representative_data, labels)
  io_dtype = io_dtype or ("int8" if integer else "float32")
  if scheme is not None and scheme.needs_calibration and is_uncalibrated(student):
    logging.warning("%s has ranges of [-6, 6] that no data has set: the file will be as wrong as the model.", path)

  examples = None if representative_data is None else _examples(student, representative_data)
  content = conversion.convert(
    student, io=io_dtype if integer else None, examples=examples, integers_only=not allow_float
  )
  if trained_integer:
    content = on_trained_grid(content, scheme.weight_bits)
  if integer and not allow_float:
    _check_integer(content, io_dtype, student)
  fields = {**(metadata or {}), "scheme": str(scheme or ("PTQ w8a8" if integer else "float"))}
  if labels is not None:
    fields["labels"] = list(labels)
  content = with_metadata(content, {**fields, "weights_sha256": sha256_of_arrays(student.get_weights())})
  write_bytes(path, content)
  logging.info("wrote %s (%d bytes)", path, len(content))
  return len(content)


def _check_model(student):
  """Refuses what the converter cannot read, or reads wrongly."""
  if not getattr(student, "inputs", None) or not getattr(student, "outputs", None):
    raise TypeError(
      f"student must be a functional or Sequential model with an Input; got {type(student).__name__}: call the layers "
      "on a `keras.Input` and wrap them as `keras.Model(inputs, outputs)`."
    )
  sizes = [tuple(tensor.shape) for tensor in student.inputs]
  if any(None in size[1:] for size in sizes):
    raise ValueError(
      f"{student.name} has inputs of shapes {sizes}; a file has fixed ones: build the student for one size, as "
      "`keras.Input((height, width, channels))`."
    )
  dtypes = {layer.name: tf.as_dtype(layer.compute_dtype) for layer in student._flatten_layers(include_self=False)}
  others = {name: dtype.name for name, dtype in dtypes.items() if dtype.is_floating and dtype != tf.float32}
  if others:
    found = ", ".join(sorted(set(others.values())))
    raise ValueError(
      f"{student.name} computes in {found} (layers {', '.join(others)}), and files in float32: build it again "
      "under the float32 policy, `copy.set_weights(student.get_weights())`, and export that."
    )


def _check_arguments(student, scheme, io_dtype, representative_data, labels):
  if io_dtype not in (None, "int8", "float32"):
    raise ValueError(f'io_dtype must be "int8" or "float32"; got {io_dtype!r}.')
  if scheme is not None and representative_data is not None:
    raise ValueError(f"representative_data is for float students; this one is {scheme}, and has its ranges already.")
  if io_dtype == "int8" and representative_data is None and (scheme is None or scheme.export_kind != "tflite"):
    raise ValueError(
      f'io_dtype="int8" is for files that compute in integers; a {scheme or "float"} student does not. '
      + ("Give representative_data, or train it as w8a8." if scheme is None else 'Use io_dtype="float32".')
    )
  if isinstance(labels, str):
    raise TypeError(f"labels must be a list of names, one for each class; got {labels!r}.")
  if labels is not None and len(student.outputs) == 1 and len(labels) != student.outputs[0].shape[-1]:
    raise ValueError(f"got {len(labels)} labels for a student of {student.outputs[0].shape[-1]} classes.")


def _examples(student, data):
  """Arrays of single examples, one for each input."""
  batches = list(input_batches(student, data, _RANGE_BATCHES))
  if not batches:
    raise ValueError("representative_data yielded no batch: give some hundred examples of the training set.")
  return [np.concatenate(arrays) for arrays in zip(*batches, strict=True)]


def _check_integer(content, io_dtype, student):
  floats = conversion.float_tensors(content, io_dtype)
  if floats:
    names = ", ".join(name.partition(";")[0] for name in floats[:5])
    raise ValueError(
      f"the {scheme_of(student) or 'float'} student {student.name} does not convert to integers only: {len(floats)} "
      f"tensors stay in float32 ({names}, ...). Let them be with allow_float=True."
    )
