"""Exports students as TFLite files."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import tensorflow as tf
import tf_keras as keras
from absl import logging

from tfkd.deploy._integer_inputs import without_casts
from tfkd.deploy.metadata import with_metadata
from tfkd.deploy.tasks import Task, check_task, task_of_ending
from tfkd.keras3 import as_tf_keras
from tfkd.ops.probabilities import endings
from tfkd.quantization import Scheme, conversion, input_batches, is_uncalibrated, scheme_of, signature
from tfkd.quantization.grid import kernel_bits, on_trained_grid
from tfkd.storage.digests import sha256_of_arrays
from tfkd.storage.files import write_bytes

_RANGE_BATCHES = 4


def to_tflite(
  student: keras.Model,
  path: str | os.PathLike,
  *,
  io_dtype: Literal["int8", "float32"] | None = None,
  representative_data: Any = None,
  allow_float: bool = False,
  input_shapes: Any = None,
  task: Task | Mapping[str, Task] | None = None,
  labels: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
  metadata: Mapping[str, Any] | None = None,
) -> int:
  """Writes a student and its metadata as a TFLite file that LiteRT runs.

  The student determines the arithmetic of the file:

  - `w8a8`: all integers, int8 inputs and outputs, no float tensor inside, which is checked on the file.
  - `w2a8` to `w7a8`: likewise, on the grid of training; weights of up to four bits are stored as int4, LiteRT's
    smallest type for convolutions.
  - fewer than eight feature bits: float32, reproducing the student's rounding, since LiteRT has no such kernels; `pack`
    writes a small file.
  - float: float32, or all integers with `representative_data`, which sets the ranges (post-training quantization).

  The file has one signature, "serving_default", with batch size 1. Its inputs and outputs have the keys of the
  student's dicts or the names of its layers; a single one that has no name of its own is "images" or "logits". Integer
  inputs, such as indices of tokens or uint8 pixels, keep their type.

  Args:
    student: functional or `Sequential` model of `tf_keras`, in float32 arithmetic. A float one of Keras 3 is converted
      by `tfkd.from_keras3`.
    path: path of the file, written atomically; an existing file is replaced.
    io_dtype: type of float inputs and outputs, "int8" or "float32"; None is int8 if the file computes in integers. With
      "float32", integer files quantize their inputs and dequantize their outputs.
    representative_data: inputs in any form that `student.fit` takes, to quantize a float student after training; four
      batches are used, see `tfkd.quantization.input_batches`.
    allow_float: whether operations without an integer form, such as those of `float_layers`, may stay in float32.
    input_shapes: sizes that the student leaves open, without the batch: a tuple such as (224, 224, 3) for a single
      input, a list in the order of several, or a dict by name. The file has these sizes.
    task: meaning of the outputs, which `evaluate` and `python -m tfkd.deploy` read: "classes", one of several for each
      example; "multi-label", independent yes or no, one or more; "per-element classes", as of pixels or tokens;
      "regression". Several outputs need a dict by name. None writes it only for outputs that end in softmax.
    labels: names of the classes, of the labels, or of the numbers, in the order of the output's last axis; for several
      outputs a dict by name.
    metadata: JSON values by name, stored in the file. `python -m tfkd.deploy` uses "mean" and "std", numbers or one per
      channel, for images (pixel / 255 - mean) / std; "sample_rate" in Hz for waveforms; and prints the others,
      such as "accuracy".

  Returns:
    Size of the file in bytes.

  Raises:
    TypeError: the student is not a functional or `Sequential` model, or labels is a string.
    ValueError: an argument does not fit the student, TFLite lacks one of its operations, the converter crashed, or
      operations stay in float without `allow_float`; their tensors are named.
  """
  student = as_tf_keras(student, "student")
  _check_model(student)
  scheme = scheme_of(student)
  shapes = signature.input_shapes(student, input_shapes)
  _check_arguments(student, scheme, io_dtype, representative_data)
  tasks = _tasks(student, task)
  names = None if labels is None else _labels(student, labels)
  if scheme is not None and scheme.needs_calibration and is_uncalibrated(student):
    logging.warning("%s has uncalibrated ranges of [-6, 6]: its outputs are wrong, as those of the model are.", path)
  is_trained_integer = scheme is not None and scheme.export_kind == "tflite"
  is_integer = is_trained_integer or representative_data is not None
  io = (io_dtype or "int8") if is_integer else None

  examples = None if representative_data is None else _examples(student, representative_data, shapes)
  content = conversion.convert(student, shapes=shapes, io=io, examples=examples, integers_only=not allow_float)
  if scheme is not None and is_trained_integer:
    content = on_trained_grid(content, kernel_bits(student))
  if is_integer:
    content = without_casts(content)
  if is_integer and not allow_float:
    _check_integer(content, io, student)
  fields = {**(metadata or {}), "scheme": str(scheme or ("PTQ w8a8" if is_integer else "float"))}
  if names is not None:
    fields["labels"] = names
  if tasks:
    fields["task"] = tasks
  for kind in ("input", "output"):
    if len(getattr(student, f"{kind}s")) > 1:  # LiteRT sorts them by name.
      fields[f"{kind}s"] = signature.names(student, kind)
  content = with_metadata(content, {**fields, "weights_sha256": sha256_of_arrays(student.get_weights())})
  _check_opens(content, student)
  write_bytes(path, content)
  logging.info("wrote %s (%d bytes)", path, len(content))
  return len(content)


def _check_opens(content: bytes, student: keras.Model) -> None:
  """Raises for a file that LiteRT cannot open, before it is written."""
  from ai_edge_litert.interpreter import Interpreter

  try:
    Interpreter(model_content=bytes(content)).allocate_tensors()
  except (RuntimeError, ValueError) as error:
    raise ValueError(
      f"LiteRT cannot open the file of {student.name}, which was not written: {error} Update ai-edge-litert, or export "
      "another scheme."
    ) from error


def _check_model(student: keras.Model) -> None:
  """Raises for a model that TensorFlow's converter cannot read, or reads wrongly."""
  if not getattr(student, "inputs", None) or not getattr(student, "outputs", None):
    raise TypeError(
      f"student must be a functional or Sequential model with an Input; got {type(student).__name__}: call the layers "
      "on a `keras.Input` and wrap them as `keras.Model(inputs, outputs)`."
    )
  dtypes = {layer.name: tf.as_dtype(layer.compute_dtype) for layer in student._flatten_layers(include_self=False)}
  others = {name: dtype.name for name, dtype in dtypes.items() if dtype.is_floating and dtype != tf.float32}
  if others:
    found = ", ".join(sorted(set(others.values())))
    raise ValueError(
      f"{student.name} computes in {found} (layers {', '.join(others)}), but files compute in float32: build a copy "
      "under the float32 policy, call `copy.set_weights(student.get_weights())`, and export the copy."
    )


def _check_arguments(
  student: keras.Model,
  scheme: Scheme | None,
  io_dtype: str | None,
  representative_data: Any,
) -> None:
  if io_dtype not in (None, "int8", "float32"):
    raise ValueError(f'io_dtype must be "int8" or "float32"; got {io_dtype!r}.')
  if scheme is not None and representative_data is not None:
    raise ValueError(f"representative_data is for float students; this one is {scheme} and has ranges from training.")
  if io_dtype == "int8" and representative_data is None and (scheme is None or scheme.export_kind != "tflite"):
    raise ValueError(
      f'io_dtype="int8" is for files that compute in integers; a {scheme or "float"} student does not. '
      + ("Pass representative_data, or train it as w8a8." if scheme is None else 'Use io_dtype="float32".')
    )


def _by_output(student: keras.Model, argument: str, given: Any) -> dict[str, Any]:
  """Returns an argument that is a value of a single output, or a dict by name, as a dict by name in the file."""
  names, own = signature.names(student, "output"), signature.own_names(student, "output")
  if given is not None and not isinstance(given, Mapping):
    if len(names) > 1:
      raise ValueError(
        f"{argument} of a student with several outputs must be a dict by name, {', '.join(own)}; got {given!r}."
      )
    return {names[0]: given}
  given = {dict(zip(own, names, strict=True)).get(name, name): value for name, value in (given or {}).items()}
  unknown = [name for name in given if name not in names]
  if unknown:
    raise ValueError(f"{argument} names outputs {', '.join(map(str, unknown))}; the student has {', '.join(own)}.")
  return given


def _labels(student: keras.Model, labels: Any) -> list[str] | dict[str, list[str]]:
  """Returns the labels of the single output, or those of several by name."""
  if isinstance(labels, str):
    raise TypeError(f"labels must be a list of names, one for each class; got {labels!r}.")
  given, names = _by_output(student, "labels", labels), signature.names(student, "output")
  for name, tensor in zip(names, student.outputs, strict=True):
    if name in given and len(given[name]) != tensor.shape[-1]:
      where = f" of '{name}'" if len(names) > 1 else ""
      raise ValueError(f"got {len(given[name])} labels{where} for a student of {tensor.shape[-1]} classes.")
  found = {name: list(values) for name, values in given.items()}
  return found[names[0]] if len(names) == 1 else found


def _tasks(student: keras.Model, task: Any) -> str | dict[str, str] | None:
  """Returns the task of the single output, or those of several by name, as far as they are given or certain."""
  names, given = signature.names(student, "output"), _by_output(student, "task", task)
  found = {}
  for name, tensor, ending in zip(names, student.outputs, endings(student) or [None] * len(names), strict=True):
    shape = [1, *tensor.shape[1:]]
    if name in given:
      check_task(given[name], shape, name)
    found[name] = given.get(name) or task_of_ending(ending, shape)
  found = {name: value for name, value in found.items() if value}
  return found.get(names[0]) if len(names) == 1 else found


def _examples(student: keras.Model, data: Any, shapes: Sequence[tuple[int, ...]]) -> list[np.ndarray]:
  """Returns an array [examples, ...] for each input."""
  batches = list(input_batches(student, data, _RANGE_BATCHES))
  if not batches:
    raise ValueError("representative_data yielded no batch: pass a few hundred training examples.")
  for batch in batches:
    for name, array, shape in zip(signature.own_names(student, "input"), batch, shapes, strict=True):
      if tuple(array.shape[1:]) != shape:
        raise ValueError(
          f"representative_data has shape {tuple(array.shape[1:])} for input '{name}', and input_shapes {shape}: pass "
          "data of the sizes of the file."
        )
  return [np.concatenate(arrays) for arrays in zip(*batches, strict=True)]


def _check_integer(content: bytes, io_dtype: str | None, student: keras.Model) -> None:
  floats = conversion.float_tensors(content, io_dtype)
  if floats:
    names = ", ".join(name.partition(";")[0] for name in floats[:5])
    raise ValueError(
      f"the {scheme_of(student) or 'float'} student {student.name} does not convert to integers only: {len(floats)} "
      f"tensors stay in float32 ({names}, ...). Pass allow_float=True to accept them."
    )
