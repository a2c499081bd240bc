"""Metrics of Keras on the outputs of a file."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tf_keras as keras

from tfkd.deploy.tasks import OF_CLASSES, Task, weights_of_elements

_ACCURACY = ("accuracy", "acc")
_CROSS_ENTROPY = ("crossentropy", "ce")
# Keras' metrics that read outputs as probabilities, by the names of their classes and functions.
_ON_PROBABILITIES = {
  "BinaryAccuracy", "BinaryCrossentropy", "CategoricalCrossentropy", "SparseCategoricalCrossentropy", "KLDivergence",
  "AUC", "Precision", "Recall", "TruePositives", "TrueNegatives", "FalsePositives", "FalseNegatives", "BinaryIoU",
  "PrecisionAtRecall", "RecallAtPrecision", "SensitivityAtSpecificity", "SpecificityAtSensitivity",
  "binary_accuracy", "binary_crossentropy", "categorical_crossentropy", "sparse_categorical_crossentropy",
  "binary_focal_crossentropy", "categorical_focal_crossentropy", "kl_divergence",
}  # fmt: skip
_ROUNDING = 0.02  # Of eight-bit probabilities.


class Metrics:
  """Metrics of one output, with the sample weights of `fit`.

  Args:
    given: metrics of `tf_keras`, their names or functions; one or a list.
    task: the task of the output, or None. "accuracy" and "crossentropy" are chosen by it.
    ending: "softmax" or "sigmoid" if the outputs are probabilities, else None.
    output: name of the output, for messages.

  Raises:
    TypeError: a metric is none of these.
    ValueError: a name is not known.
  """

  def __init__(self, given: Any, task: Task | None, ending: str | None, output: str):
    self._given = list(given) if isinstance(given, (list, tuple)) else [given]
    self._task, self._ending, self._output = task, ending, output
    self._metrics: list[keras.metrics.Metric] | None = None
    if not any(name in (*_ACCURACY, *_CROSS_ENTROPY) for name in self._given if isinstance(name, str)):
      self._make(None)  # Unknown names are found before the file runs.

  def update(self, outputs: np.ndarray, labels: Any, weights: Any) -> None:
    """Adds a batch; see `Measurement.update`."""
    labels = np.asarray(labels)
    if labels.shape == outputs.shape[:-1] and outputs.shape[-1] == 1:
      labels = labels[..., None]
    metrics = self._metrics or self._make(labels.shape == outputs.shape)
    if weights is not None:
      weights = np.asarray(weights_of_elements(weights, outputs.shape[:-1] or outputs.shape), np.float32)
    for metric in metrics:
      self._check_values(metric, outputs)
      self._check_shapes(metric, outputs, labels)
      metric.update_state(labels, outputs, sample_weight=weights)

  def result(self) -> dict[str, Any]:
    """Returns the results by the metrics' names."""
    found = {}
    for metric in self._metrics or ():
      value = metric.result()
      values = value if isinstance(value, Mapping) else {metric.name: value}
      for name, entry in values.items():
        array = np.asarray(entry)
        found[name] = float(array) if array.ndim == 0 else array.tolist()
    return found

  def _make(self, is_vector: bool | None) -> list[keras.metrics.Metric]:
    self._metrics = [self._metric(given, is_vector) for given in self._given]
    names = [metric.name for metric in self._metrics]
    if len(set(names)) < len(names):
      raise ValueError(f"metrics of '{self._output}' have the same name twice: {', '.join(names)}; give them names.")
    for metric in self._metrics:
      metric.reset_state()
    return self._metrics

  def _metric(self, given: Any, is_vector: bool | None) -> keras.metrics.Metric:
    if isinstance(given, str) and given in (*_ACCURACY, *_CROSS_ENTROPY):
      return self._by_task(given, is_vector)
    found = given
    if isinstance(given, str):
      try:
        found = keras.metrics.get(given)
      except ValueError:
        found = None
      if found is None or isinstance(found, str):  # Keras returns some unknown names as they are.
        raise ValueError(f"metrics has {given!r}, which is no metric of tf_keras.")
    if isinstance(found, type) and issubclass(found, keras.metrics.Metric):
      found = found()
    if isinstance(found, keras.metrics.Metric):
      return found
    if not callable(found) or isinstance(found, type) or type(found).__module__.startswith("keras."):
      raise TypeError(f"metrics must be metrics of tf_keras, their names or functions; got {type(given).__name__}.")
    name = given if isinstance(given, str) else getattr(given, "__name__", "metric")
    return keras.metrics.MeanMetricWrapper(found, name)

  def _by_task(self, name: str, is_vector: bool | None) -> keras.metrics.Metric:
    """Returns the accuracy or cross-entropy that suits the task."""
    metrics, is_accuracy = keras.metrics, name in _ACCURACY
    if self._task in OF_CLASSES:
      kind = ("" if is_vector else "Sparse") + ("CategoricalAccuracy" if is_accuracy else "CategoricalCrossentropy")
      options: dict[str, Any] = {} if is_accuracy else {"from_logits": self._ending is None}
    elif self._task == "multi-label":
      kind = "BinaryAccuracy" if is_accuracy else "BinaryCrossentropy"
      options = {"threshold": 0.5 if self._ending else 0.0} if is_accuracy else {"from_logits": self._ending is None}
    else:
      reason = f"whose task is {self._task}" if self._task else "whose task is not known"
      raise ValueError(
        f"metrics has {name!r} for output '{self._output}', {reason}: pass a metric such as "
        "keras.metrics.BinaryAccuracy(threshold=0.0), or write the task into the file, "
        "tfkd.deploy.write_metadata(path, task=...)."
      )
    return getattr(metrics, kind)(name=name, **options)

  def _check_values(self, metric: keras.metrics.Metric, outputs: np.ndarray) -> None:
    """Raises ValueError if a metric takes logits for probabilities, or the reverse."""
    name, options = _name_and_options(metric)
    from_logits = bool(options.get("from_logits"))
    if from_logits and self._ending:
      raise ValueError(
        f"output '{self._output}' of the file ends in {self._ending}, and metric {metric.name} has from_logits=True: "
        "leave from_logits out."
      )
    threshold = options.get("threshold", options.get("thresholds"))
    thresholds = np.ravel(0.5 if threshold is None else threshold)
    if name not in _ON_PROBABILITIES or from_logits or not ((thresholds > 0) & (thresholds < 1)).any():
      return
    if outputs.min() < -_ROUNDING or outputs.max() > 1 + _ROUNDING:
      raise ValueError(
        f"metric {metric.name} expects probabilities, and output '{self._output}' of the file has values from "
        f"{outputs.min():.3g} to {outputs.max():.3g}: pass from_logits=True, or for a threshold of 0.5 the threshold "
        "0.0 of logits."
      )

  def _check_shapes(self, metric: keras.metrics.Metric, outputs: np.ndarray, labels: np.ndarray) -> None:
    """Raises ValueError for labels that Keras would broadcast against the outputs."""
    name, _ = _name_and_options(metric)
    is_own = not (type(metric).__module__.startswith("tf_keras.") and _is_of_keras(metric))
    is_index = labels.shape in (outputs.shape[:-1], (*outputs.shape[:-1], 1))
    takes_indices = name.lower().startswith("sparse") or "IoU" in name
    if is_own or labels.shape == outputs.shape or is_index and takes_indices:
      return
    expected = f"{outputs.shape[:-1]}" if takes_indices else f"{outputs.shape}"
    raise ValueError(
      f"metric {metric.name} compares outputs of shape {outputs.shape} with labels of shape {labels.shape}; expected "
      f"{expected}."
    )


def _name_and_options(metric: keras.metrics.Metric) -> tuple[str, dict[str, Any]]:
  """Returns the name of a metric's class, or of the function that it averages, and its options."""
  options = {**vars(metric), **getattr(metric, "_fn_kwargs", {})}
  if "_from_logits" in options:  # Of AUC.
    options["from_logits"] = options["_from_logits"]
  if type(metric).__name__ == "MeanMetricWrapper":
    function = metric._fn
    return getattr(function, "__name__", ""), {**options, **getattr(function, "keywords", {})}
  return type(metric).__name__, options


def _is_of_keras(metric: keras.metrics.Metric) -> bool:
  function = getattr(metric, "_fn", None)
  return function is None or getattr(function, "__module__", "").startswith("tf_keras.")
