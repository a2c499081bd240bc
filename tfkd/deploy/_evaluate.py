"""Runs TFLite files over data sets, one image at a time."""

import os
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf
import tf_keras as keras

from tfkd.deploy.metadata import metadata_or_none
from tfkd.storage.digests import sha256_of_arrays

Interpreter: TypeAlias = Any
"""`ai_edge_litert.interpreter.Interpreter`, which is imported on first use."""


def logits(
  path: str | os.PathLike, dataset: tf.data.Dataset, num_threads: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
  """Runs a TFLite file on every image of a data set.

  Args:
    path: TFLite file with one input and one output.
    dataset: `tf.data` data set of (images, labels) batches, with images scaled as in training.
    num_threads: number of LiteRT threads; None uses all cores.

  Returns:
    float32 [images, classes] logits (dequantized), int64 [images] labels.

  Raises:
    FileNotFoundError: there is no file at `path`.
    ValueError: the file is not a TFLite file, was changed since it was written, or does not accept the images.
  """
  found, labels, _ = _run_all(interpreter(path, num_threads), dataset, None)
  return found, labels


def evaluate(
  path: str | os.PathLike,
  dataset: tf.data.Dataset,
  student: keras.Model | None = None,
  num_threads: int | None = None,
) -> dict[str, Any]:
  """Measures a TFLite file on a data set and compares it with the Keras model it was exported from.

  Args:
    path: see `logits`.
    dataset: see `logits`.
    student: the `tf_keras` model that `to_tflite` was given; its outputs are compared with the file's for every image.
    num_threads: see `logits`.

  Returns:
    dict: "accuracy" in [0, 1], "loss" (mean cross-entropy in nats), "bytes" of the file, "images" evaluated. With a
    student also: "student_accuracy"; "agreement", the share of images for which file and student choose the same class;
    "worst_difference" and "mean_difference", the largest and the mean absolute difference of logits; and "worst_steps",
    the largest difference in steps of the output's grid (None for float outputs). XNNPACK and the built-in kernels of
    LiteRT differ from each other by up to one step.

  Raises:
    FileNotFoundError: see `logits`.
    ValueError: see `logits`; or the file was exported from another model or other weights than those of `student`.
  """
  if student is not None:
    fields = metadata_or_none(path)
    if fields is None or fields.get("weights_sha256") != sha256_of_arrays(student.get_weights()):
      raise ValueError(f"{path} was not exported from {student.name} with its present weights: export it again.")
  opened = interpreter(path, num_threads)
  scores, labels, outputs = _run_all(opened, dataset, student)
  shifted = scores - scores.max(axis=1, keepdims=True)
  log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
  measured = {
    "accuracy": _accuracy(scores, labels),
    "loss": float(-np.mean(log_probabilities[np.arange(len(labels)), labels])),
    "bytes": os.path.getsize(path),
    "images": len(labels),
  }
  if outputs is not None:
    (details,) = opened.get_output_details()
    measured |= _comparison(scores, outputs, labels, details["quantization"][0])
  return measured


def _comparison(scores: np.ndarray, outputs: np.ndarray, labels: np.ndarray, step: float) -> dict[str, Any]:
  """Compares the logits of a file with those of its student; `step` is 0 for float outputs."""
  differences = np.abs(scores - outputs)
  return {
    "student_accuracy": _accuracy(outputs, labels),
    "agreement": _accuracy(scores, outputs.argmax(axis=1)),
    "worst_difference": float(differences.max()),
    "mean_difference": float(differences.mean()),
    "worst_steps": float(differences.max() / step) if step else None,
  }


def run(opened: Interpreter, images: np.ndarray) -> np.ndarray:
  """Runs an interpreter on images, one at a time: exported files have batch size 1, and some cannot be resized.

  Args:
    opened: result of `interpreter`.
    images: float32 [batch, height, width, channels], scaled as in training.

  Returns:
    float32 [batch, classes].

  Raises:
    ValueError: the images have another shape than the input, or LiteRT lacks an operation.
  """
  (given,), (taken,) = opened.get_input_details(), opened.get_output_details()
  shape = tuple(given["shape"][1:].tolist())
  if shape != images.shape[1:]:
    raise ValueError(f"the file takes images of shape {shape}; the data set has {images.shape[1:]}.")
  outputs = []
  try:
    for image in _quantize(images, given):
      opened.set_tensor(given["index"], image[None])
      opened.invoke()
      outputs.append(opened.get_tensor(taken["index"]))
  except (RuntimeError, ValueError) as error:
    raise ValueError(f"the file is damaged, or has operations that LiteRT lacks: {error}") from error
  return _dequantize(np.concatenate(outputs), taken)


def interpreter(path: str | os.PathLike, num_threads: int | None = None) -> Interpreter:
  """Opens a LiteRT interpreter of a file with one input and one output, ready to run one image.

  The digest of a file that carries tfkd metadata is verified.

  Args:
    path: TFLite file.
    num_threads: number of LiteRT threads; None uses all cores.

  Raises:
    FileNotFoundError, ValueError: see `logits`.
  """
  from ai_edge_litert.interpreter import Interpreter

  metadata_or_none(path)
  try:
    opened = Interpreter(model_path=os.fspath(path), num_threads=num_threads or os.cpu_count())
    opened.allocate_tensors()
  except (ValueError, RuntimeError) as error:
    raise ValueError(f"{path} is not a TFLite file that LiteRT can run: {error}") from error
  ends = len(opened.get_input_details()), len(opened.get_output_details())
  if ends != (1, 1):
    raise ValueError(f"{path} has {ends[0]} inputs and {ends[1]} outputs; expected one of each, images and logits.")
  return opened


def _run_all(
  opened: Interpreter, dataset: tf.data.Dataset, student: keras.Model | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
  """Returns the logits of the file, the labels, and the logits of the student or None."""
  batches = []
  for images, labels in dataset.as_numpy_iterator():
    outputs = () if student is None else (student.predict_on_batch(images),)
    batches.append((run(opened, images), np.asarray(labels, np.int64).reshape(len(images)), *outputs))
  if not batches:
    raise ValueError("dataset yielded no batch; expected at least one image.")
  scores, labels, *outputs = (np.concatenate(column) for column in zip(*batches, strict=True))
  return scores, labels, outputs[0] if outputs else None


def _accuracy(scores: np.ndarray, labels: np.ndarray) -> float:
  return float(np.mean(scores.argmax(axis=1) == labels))


def _quantize(images: np.ndarray, details: dict[str, Any]) -> np.ndarray:
  scale, zero_point = details["quantization"]
  if not scale:  # Floats, or integers such as indices.
    return images.astype(details["dtype"])
  limits = np.iinfo(details["dtype"])
  return np.clip(np.round(images / scale) + zero_point, limits.min, limits.max).astype(details["dtype"])


def _dequantize(values: np.ndarray, details: dict[str, Any]) -> np.ndarray:
  scale, zero_point = details["quantization"]
  if not scale:
    return values
  return (values.astype(np.float32) - zero_point) * np.float32(scale)
