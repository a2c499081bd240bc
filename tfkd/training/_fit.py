"""One fit with TensorBoard logs, checkpoints, the best student on disk, and a stop at the first loss that is NaN."""

import contextlib
import math
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import tensorflow as tf
import tf_keras as keras
from absl import logging

from tfkd.distiller.numerics import message_of
from tfkd.quantization import save
from tfkd.storage.files import path_to_write
from tfkd.training.checkpoints import Checkpoints
from tfkd.training.strategy import is_chief, is_parameter_server

History: TypeAlias = dict[str, list[float]]


class KeepBest(keras.callbacks.Callback):
  """Saves the student after each epoch with a new best validation; raises once a loss is not finite.

  The best is that of the highest "val_accuracy", or without a metric of this name that of the lowest hard loss.

  Every worker runs it, since saving reads variables of all workers; only the chief's file is kept.

  Args:
    student: model to save.
    path: `.keras` file. Until the first epoch ends it holds the initial student.
    history: metrics of the epochs that were trained before this process started.
  """

  def __init__(self, student: keras.Model, path: str, history: Mapping[str, list[float]]):
    super().__init__()
    self._student = student
    self._path = path
    self._best = max(_scores(history), default=-math.inf)
    self._epoch = 0
    # Under ParameterServerStrategy, losses of single steps reach the chief with the end of the epoch.
    self._checks_steps = not is_parameter_server(student.distribute_strategy)
    self._supports_tf_logs = not self._checks_steps  # Keras' name: logs stay tensors.

  def on_train_begin(self, logs=None):
    if not os.path.exists(self._path):
      self._save()

  def on_epoch_begin(self, epoch, logs=None):
    self._epoch = epoch

  def on_train_batch_end(self, batch, logs=None):
    if self._checks_steps:
      self._check(batch, logs)

  def on_epoch_end(self, epoch, logs=None):
    self._check(self.params["steps"] - 1, logs)
    (score,) = _scores({name: [value] for name, value in logs.items()})
    if score > self._best:
      self._best = score
      self._save()

  def _save(self):
    with path_to_write(self._path, is_chief(self._student.distribute_strategy)) as path:
      save(self._student, path)

  def _check(self, batch, logs):
    if not math.isfinite(logs["loss"]):
      step = self._epoch * self.params["steps"] + batch
      raise FloatingPointError(
        f"loss is {logs['loss']} at step {step + 1} (batch {batch} of its epoch): lower learning_rate. The best "
        f"model before it is in {self._path}."
      )


def _scores(history: Mapping[str, list[float]]) -> list[float]:
  """Returns a score of each epoch, of which the highest is the best."""
  if "val_accuracy" in history:
    return history["val_accuracy"]
  return [-loss for loss in history.get("val_hard_loss", history.get("val_loss", ()))]


class _Validation(keras.callbacks.Callback):
  """Validates after each epoch with `evaluate`, which covers the whole data set under every strategy."""

  def __init__(self, model, dataset):
    super().__init__()
    self._dataset = dataset
    self._step = tf.function(model.test_step)  # Traced once for all epochs.
    self._supports_tf_logs = True

  def on_epoch_end(self, epoch, logs=None):
    logs.update({f"val_{name}": value for name, value in evaluate(self.model, self._dataset, self._step).items()})


def evaluate(
  model: keras.Model, dataset: tf.data.Dataset, step: Callable[[Any], Mapping[str, tf.Tensor]] | None = None
) -> dict[str, float]:
  """Evaluates a model on a whole data set under any strategy.

  Under `ParameterServerStrategy` it runs on the chief, so that every example counts exactly once; elsewhere it is
  Keras' `evaluate`.

  Args:
    model: compiled `tf_keras` model or `Distiller`.
    dataset: batches as the model reads them.
    step: the model's `test_step` as a `tf.function`, if it is traced already.

  Returns:
    dict from metric to value.
  """
  if not is_parameter_server(model.distribute_strategy):
    return model.evaluate(dataset, verbose=0, return_dict=True)
  model.reset_metrics()
  step = step or tf.function(model.test_step)
  logs: Mapping[str, tf.Tensor] = {}
  for batch in dataset:
    logs = step(batch)
  return {name: float(value) for name, value in logs.items()}


@contextlib.contextmanager
def _floating_point_errors():
  """Raises `FloatingPointError` in place of TensorFlow's error of the checks that a step contains."""
  try:
    yield
  except tf.errors.InvalidArgumentError as error:
    message = message_of(error)
    if message is None:
      raise
    raise FloatingPointError(message) from error


def fit(
  model: keras.Model,
  train: Callable[..., tf.data.Dataset],
  validation: tf.data.Dataset,
  *,
  epochs: int,
  steps_per_epoch: int,
  checkpoint_dir: str | os.PathLike,
  log_dir: str | os.PathLike,
  student: keras.Model | None = None,
  checkpoint_minutes: float | None = None,
  checkpoint_steps: int | None = None,
) -> tuple[History, float]:
  """Fits a compiled model, or resumes a fit that was killed.

  A resumed fit ends with the weights and the history of an uninterrupted one.

  Args:
    model: compiled and built `tf_keras` model or `Distiller`.
    train: function from a step number to an endless data set that begins with that step's batch. For
      `ParameterServerStrategy` it also takes `stride`, the number of workers, and yields every stride-th
      batch; see `tfkd.data.index_batches`.
    validation: evaluated whole after every epoch.
    epochs: number of epochs.
    steps_per_epoch: number of steps per epoch.
    checkpoint_dir: directory for checkpoints and for `best.keras`, the student after the epoch with the highest
      validation accuracy, or with the lowest hard loss if no metric is named "accuracy". The caller removes it.
    log_dir: directory for TensorBoard logs; emptied first unless the fit resumes.
    student: submodel to save as `best.keras`; by default the student of a `Distiller`, or else the model.
    checkpoint_minutes, checkpoint_steps: intervals between checkpoints, see `Checkpoints`.

  Returns:
    history: dict from metric to list of float, one per epoch. If the optimizer averages weights, the model ends with
      the averages, and the last validation is of these.
    seconds: duration with tracing and validation, including earlier processes up to their checkpoints.

  Raises:
    FloatingPointError: an input or a teacher output is not finite, or the loss became NaN or infinite, in training or
      in the last validation.
    SystemExit: with code 0, after SIGTERM. The same call resumes the fit.
  """
  checkpoint_dir, log_dir = os.fspath(checkpoint_dir), os.fspath(log_dir)
  strategy = model.distribute_strategy
  checkpoints = Checkpoints(model, checkpoint_dir, epochs, steps_per_epoch, checkpoint_minutes, checkpoint_steps)
  # Metrics create their variables when they are first updated.
  checkpoints.restore(lambda: evaluate(model, validation.take(1)))
  writes = is_chief(strategy)
  if not checkpoints.first_step and writes and tf.io.gfile.exists(log_dir):
    tf.io.gfile.rmtree(log_dir)
  best = os.path.join(checkpoint_dir, "best.keras")
  callbacks = [KeepBest(student or getattr(model, "student", model), best, checkpoints.history)]
  if writes:
    callbacks.append(keras.callbacks.TensorBoard(log_dir, write_graph=False))
  if is_parameter_server(strategy):
    callbacks, validation_data = [_Validation(model, validation), *callbacks], None
    data = keras.utils.experimental.DatasetCreator(
      lambda worker: train(checkpoints.first_step + worker.input_pipeline_id, stride=worker.num_input_pipelines)
    )
  else:
    data, validation_data = train(checkpoints.first_step), validation
    spec: Any = data.element_spec
    if len(spec) == 1 and not checkpoints.first_step:
      # Without labels, the training would create metrics only with the first validation, after the first checkpoints.
      evaluate(model, validation.take(1))
  with _floating_point_errors(), checkpoints.saving_at_sigterm():
    model.fit(
      data,
      validation_data=validation_data,
      epochs=epochs,
      steps_per_epoch=steps_per_epoch,
      callbacks=[*callbacks, checkpoints],
      verbose=1 if sys.stdout.isatty() else 2,
    )
  if writes:
    logging.info("wrote TensorBoard logs to %s", log_dir)
  history = checkpoints.history
  if model.optimizer.use_ema:
    for name, value in evaluate(model, validation).items():
      history[f"val_{name}"][-1] = value
  last = history["val_loss"][-1]
  if not math.isfinite(last):
    raise FloatingPointError(
      f"loss is {last} on the validation data after the last step: lower learning_rate. The best model is in {best}."
    )
  return history, checkpoints.seconds
