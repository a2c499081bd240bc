"""Running a TFLite file over a data set, as a device would."""

import os

import numpy as np


def logits(path, dataset, num_threads=None):
  """Runs a TFLite file on every image.

  Args:
    path: TFLite file with one input and one output.
    dataset: `tf.data` data set of (images, labels) batches, images scaled as in training.
    num_threads: LiteRT threads; all cores by default.

  Returns:
    float32 [images, classes] logits (dequantized), int64 [images] labels.

  Raises:
    FileNotFoundError: no file at `path`.
    ValueError: not a TFLite file, or its input does not fit the images.
  """
  interpreter = _interpreter(path, num_threads or os.cpu_count())
  all_logits, all_labels = [], []
  try:
    for images, labels in dataset.as_numpy_iterator():
      all_logits.append(_run(interpreter, path, images))
      all_labels.append(np.asarray(labels).reshape(len(images)))
  except RuntimeError as error:
    raise ValueError(f"{path} is damaged, or of operations that LiteRT does not have: {error}") from error
  return np.concatenate(all_logits), np.concatenate(all_labels).astype(np.int64)


def evaluate(path, dataset, num_threads=None):
  """Measures a TFLite file on a whole data set.

  Args and errors are those of `logits`.

  Returns:
    dict: "accuracy" in [0, 1], "loss" (mean cross-entropy in nats), "bytes" of the file, "images" evaluated.
  """
  scores, labels = logits(path, dataset, num_threads)
  shifted = scores - scores.max(axis=1, keepdims=True)
  log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
  return {
    "accuracy": float(np.mean(scores.argmax(axis=1) == labels)),
    "loss": float(-np.mean(log_probabilities[np.arange(len(labels)), labels])),
    "bytes": os.path.getsize(path),
    "images": len(labels),
  }


def _run(interpreter, path, images):
  (given,), (taken,) = interpreter.get_input_details(), interpreter.get_output_details()
  shape = tuple(given["shape"][1:].tolist())
  if shape != images.shape[1:]:
    raise ValueError(f"{path} takes images of shape {shape}; the data set has {images.shape[1:]}.")
  if given["shape"][0] != len(images):  # Files take one image.
    interpreter.resize_tensor_input(given["index"], images.shape)
    interpreter.allocate_tensors()
    (given,), (taken,) = interpreter.get_input_details(), interpreter.get_output_details()
  interpreter.set_tensor(given["index"], _quantize(images, given))
  interpreter.invoke()
  return _dequantize(interpreter.get_tensor(taken["index"]), taken)


def _interpreter(path, num_threads):
  from ai_edge_litert.interpreter import Interpreter

  if not os.path.isfile(path):
    raise FileNotFoundError(f"no TFLite file at {path}.")
  try:
    interpreter = Interpreter(model_path=os.fspath(path), num_threads=num_threads)
    interpreter.allocate_tensors()
    return interpreter
  except (ValueError, RuntimeError) as error:
    raise ValueError(f"{path} is not a TFLite file that LiteRT can read: {error}") from error


def _quantize(images, details):
  if details["dtype"] == np.float32:
    return images.astype(np.float32)
  scale, zero_point = details["quantization"]
  limits = np.iinfo(details["dtype"])
  return np.clip(np.round(images / scale) + zero_point, limits.min, limits.max).astype(details["dtype"])


def _dequantize(values, details):
  if details["dtype"] == np.float32:
    return values
  scale, zero_point = details["quantization"]
  return (values.astype(np.float32) - zero_point) * np.float32(scale)
