"""Students as TFLite files."""

import contextlib
import warnings

import numpy as np
import tensorflow as tf
from absl import logging

from tfkd.files import atomic_path
from tfkd.quantization import scheme_of


def to_tflite(student, path):
  """Writes a student as a TFLite file that LiteRT runs.

  `w8a8` students become all-integer files: int8 in, int8 out, no float tensor inside, which is checked on the file.
  `w2a8` to `w7a8` students keep 8-bit features and store weights as int4 where they have at most four bits. For float
  students, and for fewer than eight feature bits, which no LiteRT kernel computes in, the file is float32 and
  reproduces the student's arithmetic: smaller only on paper, see `tfkd.quantization.sizes`.

  Args:
    student: `tf_keras` model with one input and one output.
    path: where to write; replaced whole or not at all.

  Returns:
    int, bytes of the file.

  Raises:
    ValueError: a w8a8 student holds operations that stay in float; their tensors are named.
  """
  bits = scheme_of(student)
  integer = bits is not None and not bits.is_low
  signature = [tf.TensorSpec([1, *student.input_shape[1:]], tf.float32, name="images")]
  # A function with batch one and without variables: the converter folds the rounding of the weights into constants.
  function = tf.function(lambda images: student(images, training=False)).get_concrete_function(*signature)
  converter = tf.lite.TFLiteConverter.from_concrete_functions([function], student)
  if integer:
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.inference_input_type = converter.inference_output_type = tf.int8
  with _quiet():
    content = converter.convert()
  if integer:
    _check_integer(content, str(bits))
  with atomic_path(path) as temporary, open(temporary, "wb") as file:
    file.write(content)
  logging.info("wrote %s (%d bytes)", path, len(content))
  return len(content)


@contextlib.contextmanager
def _quiet():
  """Hides the converter's notes on untraced functions, temporary folders and ranges, which come from training."""
  tensorflow_logger = tf.get_logger()
  verbosity, level = logging.get_verbosity(), tensorflow_logger.level
  logging.set_verbosity(logging.ERROR)
  tensorflow_logger.setLevel("ERROR")
  try:
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")
      yield
  finally:
    logging.set_verbosity(verbosity)
    tensorflow_logger.setLevel(level)


def _check_integer(content, scheme):
  from ai_edge_litert.interpreter import Interpreter

  interpreter = Interpreter(model_content=content)
  interpreter.allocate_tensors()
  floats = [d["name"] for d in interpreter.get_tensor_details() if d["dtype"] == np.float32]
  if floats:
    raise ValueError(
      f"the {scheme} student does not convert to integers only: {len(floats)} tensors stay in float32 "
      f"({', '.join(floats[:5])}, ...). Order layers convolution, batch normalisation, ReLU, so that they fuse."
    )
