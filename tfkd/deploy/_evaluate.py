"""Running a TFLite file over a data set, as a device would."""

import os
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras

from tfkd.deploy.metadata import metadata_or_none
from tfkd.storage.digests import sha256_of_arrays


def logits(
  path: str | os.PathLike, dataset: tf.data.Dataset, num_threads: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
  """Runs a TFLite file on every image.

  Args:
    path: TFLite file with one input and one output.
    dataset: `tf.data` data set of (images, labels) batches, images scaled as in training.
    num_threads: LiteRT threads; all cores by default.

  Returns:
    float32 [images, classes] logits (dequantized), int64 [images] labels.

  Raises:
    FileNotFoundError: no file at `path`.
    ValueError: not a TFLite file, one that was changed since it was written, or its input does not fit the images.
  """
  found, labels, _ = _run_all(interpreter(path, num_threads), dataset, None)
  return found, labels


def evaluate(
  path: str | os.PathLike, dataset: tf.data.Dataset, student: keras.Model | None = None, num_threads: int | None = None
) -> dict[str, Any]:
  """Measures a TFLite file on a whole data set, and how far it is from the Keras model that it was made of.

  Args:
    path, dataset, num_threads: see `logits`.
    student: the `tf_keras` model that `to_tflite` was given; its answers are compared with the file's, image by image.

  Returns:
    dict: "accuracy" in [0, 1], "loss" (mean cross-entropy in nats), "bytes" of the file, "images" evaluated. With a
    student, of it, "student_accuracy" and "agreement", the share of images of which both choose the same class, and of
    the absolute differences of logits, "worst_difference" and "mean_difference", and "worst_steps", the worst in steps
    of the output's grid (None for float outputs). XNNPACK and the built-in kernels differ by a step themselves.

  Raises:
    As `logits`; and ValueError where the file is of another model than the student.
  """
  if student is not None:
    fields = metadata_or_none(path)
    if fields is None or fields.get("weights_sha256") != sha256_of_arrays(student.get_weights()):
      raise ValueError(f"{path} was made of another model, or of other weights, than {student.name}: export it again.")
  opened = interpreter(path, num_threads)
  scores, labels, students = _run_all(opened, dataset, student)
  shifted = scores - scores.max(axis=1, keepdims=True)
  log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
  measured = {
    "accuracy": _accuracy(scores, labels),
    "loss": float(-np.mean(log_probabilities[np.arange(len(labels)), labels])),
    "bytes": os.path.getsize(path),
    "images": len(labels),
  }
  if student is not None:
    differences = np.abs(scores - students)
    (details,) = opened.get_output_details()
    step = details["quantization"][0]
    measured |= {
      "student_accuracy": _accuracy(students, labels),
      "agreement": _accuracy(scores, students.argmax(axis=1)),
      "worst_difference": float(differences.max()),
      "mean_difference": float(differences.mean()),
      "worst_steps": float(differences.max() / step) if step else None,
    }
  return measured


def run(opened: Any, images: np.ndarray) -> np.ndarray:
  """Runs an interpreter on images, one after the other, as files take one: some networks' files take no more at all.

  Args:
    opened: of `interpreter`.
    images: float32 [batch, height, width, channels], scaled as in training.

  Returns:
    float32 [batch, classes].

  Raises:
    ValueError: images do not fit, or LiteRT lacks an operation.
  """
  (given,), (taken,) = opened.get_input_details(), opened.get_output_details()
  shape = tuple(given["shape"][1:].tolist())
  if shape != images.shape[1:]:
    raise ValueError(f"the file takes images of shape {shape}; the data set has {images.shape[1:]}.")
  answers = []
  try:
    for image in _quantize(images, given):
      opened.set_tensor(given["index"], image[None])
      opened.invoke()
      answers.append(opened.get_tensor(taken["index"]))
  except (RuntimeError, ValueError) as error:
    raise ValueError(f"the file is damaged, or of operations that LiteRT does not have: {error}") from error
  return _dequantize(np.concatenate(answers), taken)


def interpreter(path: str | os.PathLike, num_threads: int | None = None) -> Any:
  """A LiteRT interpreter of a file with one input and one output, ready to run one image.

  Raises:
    FileNotFoundError, ValueError: see `logits`.
  """
  from ai_edge_litert.interpreter import Interpreter

  metadata_or_none(path)  # A file that says what it was written as is that, or an error.
  try:
    opened = Interpreter(model_path=os.fspath(path), num_threads=num_threads or os.cpu_count())
    opened.allocate_tensors()
  except (ValueError, RuntimeError) as error:
    raise ValueError(f"{path} is not a TFLite file that LiteRT can run: {error}") from error
  ends = len(opened.get_input_details()), len(opened.get_output_details())
  if ends != (1, 1):
    raise ValueError(f"{path} has {ends[0]} inputs and {ends[1]} outputs; expected one of each, images and logits.")
  return opened


def _run_all(opened, dataset, student):
  """Logits of the file, labels, and logits of the student, or None."""
  rows = []
  for images, labels in dataset.as_numpy_iterator():
    answers = () if student is None else (student.predict_on_batch(images),)
    rows.append((run(opened, images), np.asarray(labels, np.int64).reshape(len(images)), *answers))
  if not rows:
    raise ValueError("the data set has no batch: give at least one image.")
  scores, labels, *answers = (np.concatenate(column) for column in zip(*rows, strict=True))
  return scores, labels, answers[0] if answers else None


def _accuracy(scores, labels):
  return float(np.mean(scores.argmax(axis=1) == labels))


def _quantize(images, details):
  scale, zero_point = details["quantization"]
  if not scale:  # Floats, or integers that count or index something.
    return images.astype(details["dtype"])
  limits = np.iinfo(details["dtype"])
  return np.clip(np.round(images / scale) + zero_point, limits.min, limits.max).astype(details["dtype"])


def _dequantize(values, details):
  scale, zero_point = details["quantization"]
  if not scale:
    return values
  return (values.astype(np.float32) - zero_point) * np.float32(scale)
