"""Students as TFLite files."""

import contextlib
import os
import re
import sys
import tempfile
import warnings

import numpy as np
import tensorflow as tf
from absl import logging
from tensorflow.lite.python.convert import ConverterError

from tfkd.deploy.metadata import weights_digest, with_metadata, write
from tfkd.quantization import has_untrained_ranges, images_for_ranges, scheme_of

_RANGE_BATCHES = 4
_FOR_US = r"error|not supported|unsupported|custom op|flex"  # What of the converter's own log lines is for its user.


def to_tflite(student, path, *, io=None, representative_data=None, allow_float=False, labels=None, metadata=None):
  """Writes a student as a TFLite file that LiteRT runs, with its metadata.

  `w8a8` students become all-integer files: int8 in, int8 out, no float tensor inside, which is checked on the file.
  `w2a8` to `w7a8` students likewise, with weights of up to four bits stored as int4, LiteRT's smallest for
  convolutions, on the grid that they were trained on. A float student becomes an all-integer file with
  `representative_data`, which set its ranges (post-training quantization), and a float32 file without. For fewer than
  eight feature bits, which no LiteRT kernel computes in, the file is float32 and reproduces the student's arithmetic;
  `pack` writes such a student small.

  The file has one signature, "serving_default", from "images" [1, height, width, channels] to "logits" [1, classes].

  Args:
    student: `tf_keras` model with one input and one output.
    path: where to write; replaced whole or not at all.
    io: "int8" or "float32", type of images and logits; by default int8 where the file computes in integers. Integer
      files with float32 quantize at the entrance and dequantize at the exit.
    representative_data: images as an array or `tf.data` data set, as the student reads them, to quantize a float
      student after its training; four batches are used, see `tfkd.quantization.calibrate`.
    allow_float: let operations without an integer form stay in float32, as those of `float_layers` do.
    labels: list of str, names of the classes.
    metadata: dict of what JSON can hold, kept in the file. Names that `python -m tfkd.deploy` knows: "mean" and "std"
      of each channel, for images (pixel / 255 - mean) / std; "accuracy" in [0, 1] and "data", its data set.

  Returns:
    int, bytes of the file.

  Raises:
    ValueError: an argument does not fit the student, TFLite lacks one of its operations, or operations stay in float
      and may not; their tensors are named.
  """
  bits = scheme_of(student)
  trained_integer = bits is not None and not bits.is_low
  integer = trained_integer or representative_data is not None
  _check_arguments(student, bits, io, representative_data, labels)
  io = io or ("int8" if integer else "float32")
  if trained_integer and has_untrained_ranges(student):
    logging.warning("%s has ranges of [-6, 6] that no data has set: the file will be as wrong as the model.", path)

  def logits(images):
    return {"logits": student(images, training=False)}

  # Of batch one and without variables: the converter folds the rounding of the weights into constants.
  signature = tf.TensorSpec([1, *student.input_shape[1:]], tf.float32, name="images")
  function = tf.function(logits).get_concrete_function(signature)
  # The converter saves what it is given: variables alone, for a Keras model would have each of its layers traced anew.
  variables = tf.Module()
  variables.held = list(student.variables)
  converter = tf.lite.TFLiteConverter.from_concrete_functions([function], variables)
  if integer:
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.inference_input_type = converter.inference_output_type = tf.as_dtype(io)
  if representative_data is not None:
    converter.representative_dataset = lambda: _single_images(representative_data)
    if not allow_float:
      converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
  with _quiet():
    try:
      content = converter.convert()
    except (ConverterError, RuntimeError) as error:
      hint = " Or let such operations stay in float with allow_float=True." if representative_data is not None else ""
      raise ValueError(f"{student.name} does not convert to TFLite: {error}.{hint}") from error
  if integer and not allow_float:
    _check_integer(content, io, "converted" if bits is None else str(bits))
  fields = {**(metadata or {}), "scheme": str(bits or ("PTQ w8a8" if integer else "float"))}
  if labels is not None:
    fields["labels"] = list(labels)
  content = with_metadata(content, {**fields, "weights_sha256": weights_digest(student)})
  write(path, content)
  logging.info("wrote %s (%d bytes)", path, len(content))
  return len(content)


def _check_arguments(student, bits, io, representative_data, labels):
  if io not in (None, "int8", "float32"):
    raise ValueError(f'io must be "int8" or "float32"; got {io!r}.')
  if bits is not None and representative_data is not None:
    raise ValueError(f"representative_data is for float students; this one is {bits}, and has its ranges already.")
  if io == "int8" and representative_data is None and (bits is None or bits.is_low):
    raise ValueError(
      f'io="int8" is for files that compute in integers; a {bits or "float"} student does not. '
      + ("Give representative_data, or train it as w8a8." if bits is None else 'Use io="float32".')
    )
  if len(student.inputs) != 1 or len(student.outputs) != 1 or None in student.input_shape[1:]:
    raise ValueError(
      f"expected a student with one input of fixed size and one output; {student.name} has inputs of shapes "
      f"{[tuple(i.shape) for i in student.inputs]} and {len(student.outputs)} outputs."
    )
  if labels is not None and len(labels) != student.output_shape[-1]:
    raise ValueError(f"got {len(labels)} labels for a student of {student.output_shape[-1]} classes.")


def _single_images(data):
  count = 0
  for batch in images_for_ranges(data, _RANGE_BATCHES):
    for image in batch:
      count += 1
      yield [image[None]]
  if not count:
    raise ValueError("representative_data yielded no image: give some hundred of the training set.")


@contextlib.contextmanager
def _quiet():
  """Hides the converter's notes on untraced functions, temporary folders and ranges, which come from training.

  Its compiled part writes to the process's standard error; what is written there meanwhile is passed on where it is an
  error, or all of it where the conversion fails.
  """
  tensorflow_logger = tf.get_logger()
  verbosity, level = logging.get_verbosity(), tensorflow_logger.level
  logging.set_verbosity(logging.ERROR)
  tensorflow_logger.setLevel("ERROR")
  sys.stderr.flush()
  kept, failed = os.dup(2), True
  with tempfile.TemporaryFile() as captured:
    os.dup2(captured.fileno(), 2)
    try:
      with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
      failed = False
    finally:
      os.dup2(kept, 2)
      os.close(kept)
      logging.set_verbosity(verbosity)
      tensorflow_logger.setLevel(level)
      captured.seek(0)
      for line in captured.read().decode(errors="replace").splitlines():
        if failed or re.search(_FOR_US, line, re.IGNORECASE):
          sys.stderr.write(f"{line}\n")


def _check_integer(content, io, kind):
  from ai_edge_litert.interpreter import Interpreter

  interpreter = Interpreter(model_content=content)
  interpreter.allocate_tensors()
  ends = {d["index"] for d in interpreter.get_input_details() + interpreter.get_output_details() if io == "float32"}
  floats = [d["name"] for d in interpreter.get_tensor_details() if d["dtype"] == np.float32 and d["index"] not in ends]
  if floats:
    raise ValueError(
      f"the {kind} student does not convert to integers only: {len(floats)} tensors stay in float32 "
      f"({', '.join(floats[:5])}, ...). Order layers convolution, batch normalisation, ReLU, so that they fuse; or let "
      "them be with allow_float=True."
    )
