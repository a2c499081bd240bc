"""Measures TFLite files on data sets."""

import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras

from tfkd.deploy._interpreter import Details, Ends, by_name, ending, ends, interpreter, run_by_name
from tfkd.deploy._metrics import Metrics
from tfkd.deploy.metadata import check_exported_from, metadata_or_none
from tfkd.deploy.tasks import TASKS, Measurement, Task, check_task, task_of_ending, task_of_labels
from tfkd.quantization.signature import valid


def logits(path: str | os.PathLike, dataset: tf.data.Dataset, num_threads: int | None = None) -> tuple[Any, Any]:
  """Runs a TFLite file on every example of a data set.

  Args:
    path: TFLite file.
    dataset: `tf.data` data set of (inputs, labels[, sample weights]) batches, with inputs scaled as in training: arrays
      [batch, ...], dicts by name, or tuples in the order of the model.
    num_threads: number of LiteRT threads; None uses all cores.

  Returns:
    Outputs, float32 [examples, ...] (dequantized), and labels [examples, ...], int64 [examples] if they are class
    indices of outputs [examples, classes]; dicts by name for files with several outputs.

  Raises:
    FileNotFoundError: there is no file at `path`.
    ValueError: the file is not a TFLite file, was changed since it was written, or does not accept the inputs.
  """
  opened, fields = interpreter(path, num_threads), metadata_or_none(path)
  names = ends(opened, fields)
  taken = names.taken
  columns: dict[str, list] = {name: [] for name in taken}
  targets: dict[str, list] = {name: [] for name in taken}
  for inputs, labels, _ in _batches(dataset):
    outputs = run_by_name(opened, inputs, names)
    for name, values in by_name(labels, taken, "labels", names.is_ordered).items():
      columns[name].append(outputs[name])
      targets[name].append(_plain_labels(np.asarray(values), outputs[name].shape))
  found = {name: np.concatenate(column) for name, column in columns.items()}
  labels = {name: np.concatenate(column) for name, column in targets.items()}
  if len(taken) > 1:
    return found, labels
  (name,) = taken
  return found[name], labels[name]


def evaluate(
  path: str | os.PathLike,
  dataset: tf.data.Dataset,
  student: keras.Model | None = None,
  num_threads: int | None = None,
  *,
  metrics: Any = None,
) -> dict[str, Any]:
  """Measures a TFLite file on a data set and compares it with the Keras model it was exported from.

  Without `metrics`, the task of the file's metadata decides what is measured, see `to_tflite`; without that, a softmax
  at the end of the file, or labels that can only be class indices: one for [..., classes] outputs.

  - "classes": "accuracy" in [0, 1] and "loss", the mean cross-entropy in nats.
  - "per-element classes": likewise over all elements, and "mean_iou", the mean over the classes that occur of
    intersection / union, in [0, 1].
  - "multi-label": "binary_accuracy" in [0, 1] over all labels (threshold 0.5 of probabilities, 0 of logits) and "loss",
    the mean binary cross-entropy in nats.
  - "regression": "mean_absolute_error" and "root_mean_squared_error", in units of the outputs.

  Labels are class indices [batch, ...] or [batch, ..., 1], one-hot vectors or probabilities of the outputs' shape,
  numbers of the outputs' shape; and, for several outputs, dicts by name or tuples in the order of the model. Sample
  weights [batch] or [batch, ...] weigh every measurement, those of `metrics` included. Files have no Keras masks: give
  masked elements a weight of zero.

  Args:
    path: see `logits`.
    dataset: see `logits`.
    student: the `tf_keras` model that `to_tflite` was given; its outputs are compared with the file's.
    num_threads: see `logits`.
    metrics: what to measure in place of the above: metrics of `tf_keras`, their names or functions, in a list; for
      several outputs a dict of lists by name. They read the outputs of the file, logits or probabilities; "accuracy"
      and "crossentropy" suit the task.

  Returns:
    dict: the measurements; "bytes" of the file, "images", the number of examples. With a student also its own as
    "student_accuracy" or likewise; "agreement", the share of classes or labels for which file and student decide
    alike; "worst_difference" and "mean_difference", the largest and the mean absolute difference of outputs; and
    "worst_steps", the largest difference in steps of the output's grid (None for float outputs). XNNPACK and the
    built-in kernels of LiteRT differ from each other by up to one step. Names of files with several outputs begin with
    the output's, as in "mask_accuracy"; outputs that `metrics` leaves out are not measured.

  Raises:
    FileNotFoundError: see `logits`.
    TypeError: an entry of `metrics` is not a metric.
    ValueError: see `logits`; the task is not known and `metrics` is None; labels, weights or metrics do not fit the
      outputs; or the file was exported from another model or other weights than those of `student`.
  """
  fields = metadata_or_none(path)
  if student is not None:
    check_exported_from(path, fields, student)
  opened = interpreter(path, num_threads)
  names = ends(opened, fields)
  taken = names.taken
  chosen = _by_output(metrics, taken)
  measured = {name: _Output(path, name, taken[name], fields or {}, chosen.get(name)) for name in chosen}
  count = 0
  for inputs, labels, weights in _batches(dataset):
    outputs = run_by_name(opened, inputs, names)
    expected = (
      {} if student is None else dict(zip(taken, tf.nest.flatten(student.predict_on_batch(inputs)), strict=True))
    )
    # Outputs that nobody measures need no labels.
    targets = by_name(labels, measured if isinstance(labels, Mapping) else taken, "labels", names.is_ordered)
    by_output = _weights(weights, measured, names)
    for name, output in measured.items():
      output.update(outputs[name], targets[name], by_output[name], expected.get(name))
    count += len(next(iter(outputs.values())))
  results: dict[str, Any] = {}
  for name, output in measured.items():
    prefix = f"{name}_" if len(taken) > 1 else ""
    results |= {f"{prefix}{key}": value for key, value in output.result().items()}
  return results | {"bytes": os.path.getsize(path), "images": count}


class _Output:
  """What is measured of one output of a file."""

  def __init__(self, path: Any, name: str, details: Mapping[str, Any], fields: Mapping[str, Any], metrics: Any):
    self._path, self._name, self._details = path, name, details
    self._ending = ending(path, details["index"])
    shape = details["shape"].tolist()
    tasks = fields.get("task")
    task = tasks.get(name) if isinstance(tasks, Mapping) else tasks
    if task is not None:
      check_task(task, shape, name)
    self._task: Task | None = task or task_of_ending(self._ending, shape)
    self._metrics = None if metrics is None else Metrics(metrics, self._task, self._ending, name)
    self._measurement: Measurement | None = None
    self._worst = self._total = self._count = 0.0
    self._has_student = False

  def update(self, outputs: np.ndarray, labels: Any, weights: Any, student: np.ndarray | None) -> None:
    if self._metrics is not None:
      self._metrics.update(outputs, labels, weights)
    else:
      self._measurement = self._measurement or self._by_task(np.asarray(labels).shape, outputs.shape)
      self._measurement.update(outputs, labels, weights, student)
    if student is not None:
      differences = np.abs(outputs.astype(np.float32) - np.asarray(student, np.float32))
      self._worst = max(self._worst, float(differences.max()))
      self._total += float(differences.sum(dtype=np.float64))
      self._count += differences.size
      self._has_student = True

  def result(self) -> dict[str, Any]:
    results: dict[str, Any] = dict((self._metrics or self._measurement).result())  # pyright: ignore[reportOptionalMemberAccess]
    if self._has_student:
      step = self._details["quantization"][0]
      results["worst_difference"] = self._worst
      results["mean_difference"] = self._total / self._count
      results["worst_steps"] = self._worst / step if step else None
    return results

  def _by_task(self, labels: tuple[int, ...], outputs: tuple[int, ...]) -> Measurement:
    task = self._task or task_of_labels(labels, outputs)
    if task is None:
      raise ValueError(
        f"the task of output '{self._name}' of {self._path} is not known, and its labels of shape {labels} for outputs "
        f"of shape {outputs} leave it open: write it into the file, tfkd.deploy.write_metadata(path, task=...) with "
        f"one of {', '.join(map(repr, TASKS))}, or pass metrics."
      )
    return Measurement(task, self._ending, self._name)


def _by_output(metrics: Any, taken: Details) -> dict[str, Any]:
  """Returns the metrics of each output that is measured, None for those of its task."""
  if metrics is None:
    return dict.fromkeys(taken)
  if isinstance(metrics, Mapping):
    unknown = [name for name in metrics if name not in taken]
    if unknown:
      raise ValueError(f"metrics names outputs {', '.join(map(str, unknown))}; the file has {', '.join(taken)}.")
    return dict(metrics)
  if len(taken) > 1:
    raise ValueError(
      f"metrics of a file with several outputs must be a dict by name, {', '.join(taken)}; got "
      f"{type(metrics).__name__}."
    )
  return {next(iter(taken)): metrics}


def _batches(dataset: tf.data.Dataset) -> Iterator[tuple[Any, Any, Any]]:
  """Yields inputs, labels, and sample weights or None."""
  is_empty = True
  for element in dataset.as_numpy_iterator():
    if not isinstance(element, tuple) or len(element) not in (2, 3):
      raise ValueError("dataset must yield batches (inputs, labels) or (inputs, labels, sample weights).")
    is_empty = False
    yield element if len(element) == 3 else (*element, None)
  if is_empty:
    raise ValueError("dataset yielded no batch; expected at least one image.")


def _weights(weights: Any, measured: Mapping[str, Any], names: Ends) -> dict[str, Any]:
  """Returns the sample weights of each output, None for those without; one array is for all outputs."""
  if isinstance(weights, Mapping):
    unknown = [name for name in weights if valid(str(name)) not in names.taken]
    if unknown:
      raise ValueError(
        f"sample weights name {', '.join(map(str, unknown))}; the outputs of the file are {', '.join(names.taken)}."
      )
    by_output = {valid(str(name)): value for name, value in weights.items()}
    return {name: by_output.get(name) for name in measured}
  if isinstance(weights, (tuple, list)):
    return by_name(weights, names.taken, "sample weights", names.is_ordered)
  return dict.fromkeys(measured, weights)


def _plain_labels(labels: np.ndarray, outputs: tuple[int, ...]) -> np.ndarray:
  is_index = len(outputs) == 2 and outputs[1] > 1 and labels.size == outputs[0]
  return labels.astype(np.int64).reshape(outputs[0]) if is_index else labels
