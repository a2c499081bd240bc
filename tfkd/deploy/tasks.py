"""What the outputs of a file mean: tasks, and the measurements of each."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np

from tfkd.ops.spelling import did_you_mean

Task = Literal["classes", "multi-label", "per-element classes", "regression"]
TASKS: tuple[Task, ...] = get_args(Task)
OF_CLASSES: tuple[Task, ...] = ("classes", "per-element classes")
"""Tasks whose last axis holds scores of classes, and whose labels are class indices."""
_LEAST = 1e-7  # Of probabilities in logarithms, as in Keras.
_SHAPES = {
  "classes": "[1, classes] with two classes or more",
  "multi-label": "[1, ..., labels]",
  "per-element classes": "[1, ..., classes] with one axis or more between and two classes or more",
  "regression": "[1, ...]",
}


def check_name(task: Any) -> None:
  """Raises ValueError unless a task is known."""
  if task not in TASKS:
    close = did_you_mean(task, TASKS) if isinstance(task, str) else ""
    raise ValueError(f"task {task!r} is not known: {close}expected one of {', '.join(map(repr, TASKS))}.")


def check_task(task: Any, shape: Sequence[int | None], output: str) -> None:
  """Raises ValueError unless a task is known and an output of this shape, with the batch, can have it."""
  check_name(task)
  rank, last = len(shape), shape[-1] if len(shape) > 1 else 1
  fits = {
    "classes": rank == 2 and last != 1,
    "multi-label": rank >= 2,
    "per-element classes": rank >= 3 and last != 1,
    "regression": rank >= 1,
  }
  if not fits[task]:
    advice = " One output for yes or no is task='multi-label' of one label." if rank >= 2 and last == 1 else ""
    raise ValueError(f"task {task!r} needs an output of shape {_SHAPES[task]}; '{output}' has {list(shape)}.{advice}")


def task_of_ending(ending: str | None, shape: Sequence[int | None]) -> Task | None:
  """Returns the task of an output that ends in softmax, which can be classes only, or None."""
  if ending != "softmax" or len(shape) < 2 or shape[-1] == 1:
    return None
  return "classes" if len(shape) == 2 else "per-element classes"


def task_of_labels(labels: tuple[int, ...], outputs: tuple[int, ...]) -> Task | None:
  """Returns the task if the shapes of labels and outputs leave one only: an index for several scores, or None."""
  is_index = len(outputs) >= 2 and outputs[-1] > 1 and labels in (outputs[:-1], (*outputs[:-1], 1))
  if not is_index:
    return None
  return "classes" if len(outputs) == 2 else "per-element classes"


class Measurement:
  """Sums over the batches of a data set of what is measured for a task.

  Args:
    task: the task.
    ending: "softmax" or "sigmoid" if the outputs of the file are probabilities; None for logits or values.
    output: name of the output, for messages.
  """

  def __init__(self, task: Task, ending: str | None, output: str):
    self._measure = _MEASURES[task]
    self._is_matrix = task == "per-element classes"
    self._ending = ending
    self._output = output
    self._sums: dict[str, float] = {}
    self._weight = 0.0
    self._confusion: Any = 0

  def update(self, outputs: np.ndarray, labels: Any, weights: Any, student: np.ndarray | None) -> None:
    """Adds a batch.

    Args:
      outputs: [batch, ...] of the file.
      labels: in a form of `fit`.
      weights: sample weights that broadcast to the elements, or None.
      student: the outputs of the student, or None.

    Raises:
      ValueError: labels or weights do not fit the outputs.
    """
    labels = np.asarray(labels)
    has_elements = self._measure is not _regression or outputs.ndim > 1
    elements = outputs.shape[:-1] if has_elements else outputs.shape
    weights = weights_of_elements(weights, elements)
    self._weight += float(weights.sum())
    measured = self._measure(outputs, labels, weights, self._ending, self._output)
    if student is not None:
      of_student = self._measure(student, labels, weights, self._ending, self._output)
      measured |= {f"student_{name}": value for name, value in of_student.items() if name not in ("loss", "classes")}
      if self._measure is not _regression:
        measured["agreement"] = _agreement(outputs, student, self._measure, self._ending)
    chosen = measured.pop("classes", None)
    measured.pop("student_classes", None)
    for name, values in measured.items():
      self._sums[name] = self._sums.get(name, 0.0) + float(np.sum(values * weights, dtype=np.float64))
    if self._is_matrix and chosen is not None:
      classes, size = chosen, outputs.shape[-1]
      pairs = classes.astype(np.int64) * size + outputs.argmax(-1)
      self._confusion += np.bincount(pairs.ravel(), weights.ravel(), size * size).reshape(size, size)

  def result(self) -> dict[str, float]:
    """Returns the weighted means over all elements; NaN if all weights were zero."""
    means = {name: total / self._weight if self._weight else float("nan") for name, total in self._sums.items()}
    for name in [name for name in means if name.endswith("mean_squared_error")]:
      means[name.replace("mean_squared_error", "root_mean_squared_error")] = float(np.sqrt(means.pop(name)))
    if self._is_matrix:
      hits = np.diag(self._confusion)
      unions = self._confusion.sum(0) + self._confusion.sum(1) - hits
      occurs = unions > 0
      means["mean_iou"] = float(np.mean(hits[occurs] / unions[occurs])) if occurs.any() else float("nan")
    return means


def weights_of_elements(weights: Any, elements: tuple[int, ...]) -> np.ndarray:
  """Returns float64 weights of the shape of the elements.

  Args:
    weights: [batch], [batch, 1] or of the elements' shape, with or without a last axis of length one; None is 1.
    elements: shape of the outputs without their last axis.

  Raises:
    ValueError: the shapes do not fit.
  """
  if weights is None:
    return np.ones(elements)
  weights = np.asarray(weights, np.float64)
  shape = weights.shape
  if weights.ndim == len(elements) + 1 and shape[-1] == 1:
    weights = weights[..., 0]
  if not 0 < weights.ndim <= len(elements) or any(
    a not in (1, b) for a, b in zip(weights.shape, elements, strict=False)
  ):
    raise ValueError(f"sample weights have shape {shape}; expected [batch] or {list(elements)}.")
  if not np.isfinite(weights).all() or (weights < 0).any():
    raise ValueError("sample weights must be finite and not negative.")
  return np.broadcast_to(weights.reshape(weights.shape + (1,) * (len(elements) - weights.ndim)), elements)


def _classes(outputs, labels, weights, ending, output) -> dict[str, np.ndarray]:
  """Accuracy and cross-entropy in nats of each element, and its class."""
  log_probabilities = _log_probabilities(outputs, ending)
  if labels.shape == outputs.shape:
    classes = labels.argmax(-1)
    loss = -(labels * log_probabilities).sum(-1)
  else:
    classes = _indices(labels, outputs.shape, weights, output)
    loss = -np.take_along_axis(log_probabilities, classes[..., None], -1)[..., 0]
  return {"accuracy": outputs.argmax(-1) == classes, "loss": loss, "classes": classes}


def _multi_label(outputs, labels, weights, ending, output) -> dict[str, np.ndarray]:
  """Mean over the labels of each element of the accuracy and of the binary cross-entropy in nats."""
  labels = of_shape(labels, outputs.shape, output)
  if ((labels < 0) | (labels > 1)).any():
    raise ValueError(f"labels of '{output}' must be 0 or 1; the data set has {labels.min()} to {labels.max()}.")
  if ending:
    probabilities = np.clip(outputs, _LEAST, 1 - _LEAST).astype(np.float64)
    loss = -(labels * np.log(probabilities) + (1 - labels) * np.log1p(-probabilities))
  else:
    loss = np.maximum(outputs, 0) - outputs * labels + np.log1p(np.exp(-np.abs(outputs)))
  accuracy = (_chosen(outputs, ending) == (labels > 0.5)).mean(-1)
  return {"binary_accuracy": accuracy, "loss": loss.mean(-1)}


def _regression(outputs, labels, weights, ending, output) -> dict[str, np.ndarray]:
  """Mean over the last axis of the absolute and the squared error of each element."""
  errors = outputs.astype(np.float64) - of_shape(labels, outputs.shape, output)
  if outputs.ndim > 1:
    return {"mean_absolute_error": np.abs(errors).mean(-1), "mean_squared_error": np.square(errors).mean(-1)}
  return {"mean_absolute_error": np.abs(errors), "mean_squared_error": np.square(errors)}


_MEASURES: Mapping[str, Callable] = {
  "classes": _classes,
  "multi-label": _multi_label,
  "per-element classes": _classes,
  "regression": _regression,
}


def _agreement(outputs: np.ndarray, student: np.ndarray, measure: Callable, ending: str | None) -> np.ndarray:
  if measure is _multi_label:
    return (_chosen(outputs, ending) == _chosen(student, ending)).mean(-1)
  return outputs.argmax(-1) == student.argmax(-1)


def _chosen(outputs: np.ndarray, ending: str | None) -> np.ndarray:
  return outputs > (0.5 if ending else 0.0)


def of_shape(labels: np.ndarray, shape: tuple[int, ...], output: str) -> np.ndarray:
  """Returns labels of the outputs' shape; an axis of length one at the end may be missing.

  Raises:
    ValueError: the shapes do not fit.
  """
  if labels.shape == shape:
    return labels
  if labels.shape == shape[:-1] and shape[-1] == 1 or (*shape, 1) == labels.shape:
    return labels.reshape(shape)
  raise ValueError(f"labels of '{output}' have shape {labels.shape}; the outputs have {shape}.")


def _indices(labels: np.ndarray, shape: tuple[int, ...], weights: np.ndarray, output: str) -> np.ndarray:
  """Returns class indices int64 [batch, ...]; those of elements without weight are 0 if they are no class."""
  if labels.shape not in (shape[:-1], (*shape[:-1], 1)):
    raise ValueError(
      f"labels of '{output}' have shape {labels.shape}; expected class indices {shape[:-1]} or one-hot vectors {shape}."
    )
  labels = labels.reshape(shape[:-1])
  is_class = (labels >= 0) & (labels < shape[-1]) & (labels == np.floor(labels))
  wrong = labels[~is_class & (weights != 0)]
  if wrong.size:
    raise ValueError(
      f"labels of '{output}' must be class indices from 0 to {shape[-1] - 1}; the data set has {wrong[0]}: give "
      "elements without a class a sample weight of zero."
    )
  return np.where(is_class, labels, 0).astype(np.int64)


def _log_probabilities(outputs: np.ndarray, ending: str | None) -> np.ndarray:
  if ending:
    probabilities = np.clip(outputs, _LEAST, 1)
    return np.log(probabilities / probabilities.sum(-1, keepdims=True))
  shifted = outputs - outputs.max(axis=-1, keepdims=True)
  return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
