"""What the outputs of a sweep's networks mean: how they are trained, measured and exported."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import tf_keras as keras

from tfkd.deploy.tasks import OF_CLASSES, Task, check_name
from tfkd.features.outputs import keys_of, part_of
from tfkd.objectives import BinarySoftTargets, Objective
from tfkd.ops.keras_losses import function_name
from tfkd.sweeps.labels import checked

_METRICS: Mapping[str, tuple[str, ...]] = {
  "classes": ("accuracy",),
  "per-element classes": ("accuracy", "mean_iou"),
  "multi-label": ("binary_accuracy",),
  "regression": ("mean_absolute_error", "root_mean_squared_error"),
}


class Output(NamedTuple):
  """One output of the networks."""

  task: Task
  names: tuple[str, ...]
  """Of the classes, of the labels, or of the numbers, along the last axis."""
  loss: Any
  """Keras loss in place of the task's own, or None."""

  def keras_loss(self, has_distributions: bool) -> keras.losses.Loss:
    """Makes the loss of the labels.

    Args:
      has_distributions: whether labels are distributions over classes in place of indices.
    """
    if self.loss is not None:
      return keras.losses.get(self.loss)
    if self.task == "multi-label":
      return keras.losses.BinaryCrossentropy(from_logits=True)
    if self.task == "regression":
      return keras.losses.MeanSquaredError()
    if has_distributions:
      return keras.losses.CategoricalCrossentropy(from_logits=True)
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)

  def metrics(self, has_distributions: bool) -> list[keras.metrics.Metric]:
    """Makes the metrics of the task, with the names that `tfkd.deploy.evaluate` gives them."""
    # For a metric given by name, Keras would create variables in the first step and trace that step twice.
    if self.task == "multi-label":
      return [keras.metrics.BinaryAccuracy("binary_accuracy", threshold=0.0)]
    if self.task == "regression":
      return [
        keras.metrics.MeanAbsoluteError("mean_absolute_error"),
        keras.metrics.RootMeanSquaredError("root_mean_squared_error"),
      ]
    if has_distributions:
      return [keras.metrics.CategoricalAccuracy("accuracy")]
    accuracy = keras.metrics.SparseCategoricalAccuracy("accuracy")
    if self.task == "classes":
      return [accuracy]
    return [accuracy, keras.metrics.MeanIoU(len(self.names), name="mean_iou", sparse_y_pred=False)]


class Outputs:
  """The outputs of all networks of a sweep: one, or several by name.

  Args:
    task: of the output, see `tfkd.deploy.to_tflite`; a dict by name for networks that return a dict.
    classes: names of the classes, of the labels, or of the numbers of a regression; likewise a dict.
    loss: Keras loss of the labels, its name or function, likewise; None is the loss of the task.

  Raises:
    ValueError: a task is not known, there are fewer than two classes, or the dicts have different keys.
  """

  def __init__(self, task: Any, classes: Any, loss: Any = None):
    self.is_single = not isinstance(task, Mapping)
    tasks: Mapping[Any, Any] = {None: task} if self.is_single else task
    names = {None: classes} if self.is_single else classes
    if not isinstance(names, Mapping) or set(names) != set(tasks):
      found = ", ".join(map(str, names)) if isinstance(names, Mapping) else repr(names)
      raise ValueError(f"classes must be a dict with the outputs of task, {', '.join(map(str, tasks))}; got {found}.")
    losses = loss if isinstance(loss, Mapping) and not self.is_single else dict.fromkeys(tasks, loss)
    unknown = [name for name in losses if name not in tasks]
    if unknown:
      raise ValueError(f"loss names outputs {', '.join(map(str, unknown))}; task has {', '.join(map(str, tasks))}.")
    for value in tasks.values():
      check_name(value)
    # In the order in which Keras flattens dicts.
    self.by_name = {
      name: Output(tasks[name], tuple(map(str, names[name])), losses.get(name))
      for name in ([None] if self.is_single else sorted(tasks))
    }
    for name, output in self.by_name.items():
      least = 2 if output.task in OF_CLASSES else 1
      if len(output.names) < least:
        where = f" of {name}" if name else ""
        raise ValueError(f"classes{where} must name {least} or more for the task {output.task!r}; got {output.names}.")

  @property
  def size(self) -> Any:
    """Length of the output's last axis, or a dict of these: the first argument of functions that build networks."""
    return self._nested({name: len(output.names) for name, output in self.by_name.items()})

  @property
  def task(self) -> Any:
    """Argument `task` of `tfkd.deploy.to_tflite`."""
    return self._nested({name: output.task for name, output in self.by_name.items()})

  @property
  def names(self) -> Any:
    """Argument `labels` of `tfkd.deploy.to_tflite`."""
    return self._nested({name: output.names for name, output in self.by_name.items()})

  @property
  def measurements(self) -> list[str]:
    """Names of the measurements in a row of the results, the most telling one first."""
    found = [_prefixed(name, metric) for name, output in self.by_name.items() for metric in _METRICS[output.task]]
    agreements = [_prefixed(name, "agreement") for name, output in self.by_name.items() if output.task != "regression"]
    return [*found, "loss", *agreements]

  @property
  def has_mixable_labels(self) -> bool:
    """Whether labels can be distributions over classes, as of label smoothing and mixup."""
    return self.is_single and self.by_name[None].task == "classes" and self.by_name[None].loss is None

  def num_scores(self, labels: Any) -> int:
    """Returns the number of scores that a network computes for an example, 0 unless it has several elements."""
    parts = [(output, part_of(labels, name)) for name, output in self.by_name.items()]
    return sum(part[0].size * len(o.names) for o, part in parts if o.task == "per-element classes")

  def losses(self, has_distributions: bool = False) -> Any:
    """Makes the argument `loss` of `compile`."""
    return self._nested({name: output.keras_loss(has_distributions) for name, output in self.by_name.items()})

  def metrics(self, has_distributions: bool = False) -> Any:
    """Makes the argument `metrics` or `weighted_metrics` of `compile`."""
    return self._nested({name: output.metrics(has_distributions) for name, output in self.by_name.items()})

  def compared(self) -> list[Objective]:
    """Makes objectives by which a `Distiller` takes outputs for independent labels; those of classes it knows."""
    labels = [name for name, output in self.by_name.items() if output.task == "multi-label"]
    return [BinarySoftTargets(output=name, name=f"labels_{number}") for number, name in enumerate(labels)]

  def measured(self, logs: Mapping[str, float], loss: str, output_names: Sequence[str] | None) -> dict[str, float]:
    """Picks the measurements of a row from the logs of Keras.

    Args:
      logs: results of `evaluate`.
      loss: name of the loss in the logs.
      output_names: of the model. Keras names metrics by them, and they may differ from the keys of a dict.
    """
    keys = list(self.by_name)
    own = output_names if output_names and len(output_names) == len(keys) else keys
    found = {"loss": float(logs[loss])}
    for key, name in zip(keys, own, strict=True):
      for metric in _METRICS[self.by_name[key].task]:
        value = logs.get(_prefixed(None if self.is_single or len(keys) == 1 else name, metric))
        if value is not None:
          found[_prefixed(key, metric)] = float(value)
      agreement = logs.get("agreement" if len(keys) == 1 else f"{key}_agreement")
      if agreement is not None:
        found[_prefixed(key, "agreement")] = float(agreement)
    return {name: found[name] for name in self.measurements if name in found}

  def evaluate(self, batches: Iterator[tuple[Any, Any, Any]]) -> dict[str, float]:
    """Measures outputs that no Keras model computes.

    Args:
      batches: of outputs, labels, and sample weights or None.

    Returns:
      Measurements of a row.
    """
    metrics = {name: output.metrics(False) for name, output in self.by_name.items()}
    losses, loss = {name: output.keras_loss(False) for name, output in self.by_name.items()}, keras.metrics.Mean()
    for batch in batches:
      total = 0.0
      for name in self.by_name:
        outputs, labels, weights = (part_of(part, name) for part in batch)
        total += losses[name](labels, outputs, weights)
        for metric in metrics[name]:
          metric.update_state(labels, outputs, sample_weight=weights)
      loss.update_state(total, sample_weight=len(labels))
    found = {_prefixed(name, metric.name): float(metric.result()) for name in metrics for metric in metrics[name]}
    return found | {"loss": float(loss.result())}

  def checked(self, split: str, labels: Any, weights: Any) -> tuple[Any, Any]:
    """Returns labels and sample weights of a split as training reads them.

    Args:
      split: name of the split, for messages.
      labels: array, or a dict of arrays by output; None for none.
      weights: array [n] or [n, ...] for a single output, or a dict of arrays by output; None for none.

    Raises:
      ValueError: they do not fit the tasks.
    """
    if labels is None:
      return None, None
    labels = self._by_name(split, "labels", labels)
    weighted = dict.fromkeys(self.by_name) if weights is None else self._by_name(split, "sample weights", weights)
    found = {
      name: checked(_where(split, name), labels[name], weighted[name], output.task, len(output.names))
      for name, output in self.by_name.items()
    }
    labels, weighted = ({name: pair[i] for name, pair in found.items()} for i in range(2))
    return self._nested(labels), None if weights is None else self._nested(weighted)

  def check_network(self, network: str, model: Any) -> None:
    """Checks the static shapes of a model's outputs.

    Args:
      network: name of the network, for the message.
      model: `tf_keras` model; one without static outputs, or another object, passes.

    Raises:
      ValueError: the network returns other outputs.
    """
    if not isinstance(model, keras.Model) or not getattr(model, "outputs", None):
      return
    shapes = {key: part_of(model.output, key).shape for key in keys_of(model.output)}
    if len(shapes) == 1 and self.is_single:
      shapes = {None: next(iter(shapes.values()))}
    expected = {name: len(output.names) for name, output in self.by_name.items()}
    if {name: shape[-1] for name, shape in shapes.items()} != expected:
      raise ValueError(
        f"network {network} returns {_described({name: list(shape) for name, shape in shapes.items()})}; the data set "
        f"needs {_described({name: [None, '...', size] for name, size in expected.items()})}: build it from its "
        "arguments."
      )

  def identity(self) -> dict[str, Any]:
    """Returns JSON values that differ for other classes, tasks or losses."""
    values = {"classes": self._nested({name: list(output.names) for name, output in self.by_name.items()})}
    if self.task != "classes":
      values["task"] = self.task
    losses = {name or "": _identity_of_loss(o.loss) for name, o in self.by_name.items() if o.loss is not None}
    return values | ({"loss": losses} if losses else {})

  def _nested(self, by_name: Mapping[Any, Any]) -> Any:
    return by_name[None] if self.is_single else dict(by_name)

  def _by_name(self, split, what, nested):
    if self.is_single:
      if isinstance(nested, Mapping):
        raise ValueError(f"{split} must have an array of {what}, since task is a single one; got a dict.")
      return {None: nested}
    if not isinstance(nested, Mapping) or set(nested) != set(self.by_name):
      found = ", ".join(map(str, nested)) if isinstance(nested, Mapping) else type(nested).__name__
      raise ValueError(
        f"{split} must have a dict of {what} by output, {', '.join(map(str, self.by_name))}; got {found}."
      )
    return nested


def _prefixed(output: str | None, name: str) -> str:
  return name if output is None else f"{output}_{name}"


def _where(split: str, output: str | None) -> str:
  return split if output is None else f"{split}, output {output},"


def _described(shapes: Mapping[Any, Any]) -> str:
  texts = [f"{name or 'one output'} {str(shape).replace(chr(39), '')}" for name, shape in shapes.items()]
  return " and ".join(texts)


def _identity_of_loss(loss: Any) -> str:
  if isinstance(loss, str):
    return loss
  name = function_name(loss) or getattr(loss, "__qualname__", type(loss).__name__)
  return f"{name}{loss.get_config()}" if hasattr(loss, "get_config") else name
