"""Labels and sample weights of a sweep's data set, checked by the task of their output."""

from typing import Any

import numpy as np

from tfkd.deploy.tasks import OF_CLASSES, Task


def checked(split: str, labels: Any, weights: Any, task: Task, num: int) -> tuple[np.ndarray, np.ndarray | None]:
  """Returns labels [n, ...] and sample weights of all elements as the loss reads them.

  A number or a label [n] becomes [n, 1], and a class index of an element of weight zero that is no class becomes 0.

  Args:
    split: name of the split and of the output, for messages.
    labels: array [n, ...].
    weights: array [n] or of the elements' shape, or None.
    task: of the output.
    num: length of the output's last axis.

  Raises:
    ValueError: labels or weights do not fit the task.
  """
  labels, has_classes = np.asarray(labels), task in OF_CLASSES
  if not len(labels):
    raise ValueError(f"{split} has no examples.")
  found = f"got {labels.dtype} labels of shape {list(labels.shape)}"
  if has_classes:
    rank_fits = labels.ndim == 1 if task == "classes" else labels.ndim > 1
    if not rank_fits or not np.issubdtype(labels.dtype, np.integer):
      shape = "[n]" if task == "classes" else "[n, ...], one for each element"
      raise ValueError(f"{split} must have integer labels {shape}, for the task {task!r}; {found}.")
  else:
    if not (np.issubdtype(labels.dtype, np.number) or labels.dtype == bool):
      raise ValueError(f"{split} must have numbers as labels, for the task {task!r}; {found}.")
    labels = labels.reshape(-1, 1) if labels.ndim == 1 else labels
    if labels.shape[-1] != num:
      expected = f"[n, ..., {num}], one per name in classes"
      raise ValueError(f"{split} must have labels {expected}, for the task {task!r}; {found}.")
    labels = labels.astype(np.float32)
  weights = _checked_weights(split, weights, labels.shape if has_classes else labels.shape[:-1])
  if not has_classes:
    _check_numbers(split, labels, task)
    return labels, weights
  is_class = (labels >= 0) & (labels < num)
  wrong = labels[~is_class if weights is None else ~is_class & (weights != 0)]
  if wrong.size:
    raise ValueError(
      f"{split} must have labels in [0, {num - 1}], one per name in classes; got {wrong[0]}: give elements "
      "without a class a sample weight of zero."
    )
  return np.where(is_class, labels, 0), weights


def _checked_weights(split: str, weights: Any, elements: tuple[int, ...]) -> np.ndarray | None:
  """Returns float32 weights of the shape of the elements."""
  if weights is None:
    return None
  weights = np.asarray(weights, np.float32)
  if weights.ndim == 0 or weights.shape not in (elements, elements[:1]):
    raise ValueError(f"{split} must have sample weights [n] or {list(elements)}; got {list(weights.shape)}.")
  if not np.isfinite(weights).all() or (weights < 0).any():
    raise ValueError(f"{split} must have sample weights that are finite and not negative.")
  return np.broadcast_to(weights.reshape(weights.shape + (1,) * (len(elements) - weights.ndim)), elements)


def _check_numbers(split: str, labels: np.ndarray, task: str) -> None:
  least, most = labels.min(), labels.max()
  if task == "multi-label" and not (least >= 0 and most <= 1):
    raise ValueError(f"{split} must have labels from 0 to 1, for the task {task!r}; got {least:g} to {most:g}.")
  if not np.isfinite(labels).all():
    raise ValueError(f"{split} must have labels that are finite; got {least:g} to {most:g}.")
