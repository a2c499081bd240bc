"""One fit with what every fit has: TensorBoard, checkpoints, the best model, a stop at the first NaN."""

import math
import os
import re
import sys

import tensorflow as tf
import tf_keras as keras
from absl import logging

from tfkd.distiller.numerics import NOT_FINITE
from tfkd.quantization import save
from tfkd.storage.files import path_to_write
from tfkd.training.checkpoints import Checkpoints
from tfkd.training.strategy import is_asynchronous, is_chief


class KeepBest(keras.callbacks.Callback):
  """Keeps the model of the epoch with the best accuracy, and stops at the first step whose loss is not finite.

  Of several workers all take part, and the chief keeps it.

  Args:
    model: what to keep, the student.
    path: where to keep it, ending in `.keras`; before the first epoch it is the model at the beginning.
    history: dict from name to list of float, of epochs that an earlier process trained.
  """

  def __init__(self, model, path, history):
    super().__init__()
    self._kept = model
    self._path = path
    self._best = max(history.get("val_accuracy", ()), default=-1.0)
    self._epoch = 0
    # Losses of steps that workers were sent come with the epoch's end.
    self._looks_at_steps = not is_asynchronous(model.distribute_strategy)
    self._supports_tf_logs = not self._looks_at_steps  # Keras' name.

  def on_train_begin(self, logs=None):
    if not os.path.exists(self._path):
      self._save()

  def on_epoch_begin(self, epoch, logs=None):
    self._epoch = epoch

  def on_train_batch_end(self, batch, logs=None):
    if self._looks_at_steps:
      self._check(batch, logs)

  def on_epoch_end(self, epoch, logs=None):
    self._check(self.params["steps"] - 1, logs)
    if logs["val_accuracy"] > self._best:
      self._best = logs["val_accuracy"]
      self._save()

  def _save(self):
    with path_to_write(self._path, is_chief(self._kept.distribute_strategy)) as path:
      save(self._kept, path)

  def _check(self, batch, logs):
    if not math.isfinite(logs["loss"]):
      step = self._epoch * self.params["steps"] + batch
      raise FloatingPointError(
        f"loss is {logs['loss']} at step {step + 1} (batch {batch} of its epoch): lower --learning_rate. The best "
        f"model before it is in {self._path}."
      )


class _Validation(keras.callbacks.Callback):
  """What Keras' own validation does, with `evaluate`, which sees the whole data set under every strategy."""

  def __init__(self, model, dataset):
    super().__init__()
    self._dataset = dataset
    self._step = tf.function(model.test_step)  # Traced once for all epochs.
    self._supports_tf_logs = True

  def on_epoch_end(self, epoch, logs=None):
    logs.update({f"val_{name}": value for name, value in evaluate(self.model, self._dataset, self._step).items()})


def evaluate(model, dataset, step=None):
  """Keras' `evaluate` of a whole data set: workers that do not wait for each other would see parts of it, others twice.

  Args:
    model: compiled `tf_keras` model or `Distiller`.
    dataset: `tf.data` data set.
    step: the model's `test_step` as a `tf.function`, where it was traced before.

  Returns:
    dict from name to float.
  """
  if not is_asynchronous(model.distribute_strategy):
    return model.evaluate(dataset, verbose=0, return_dict=True)
  model.reset_metrics()
  step = step or tf.function(model.test_step)
  for batch in dataset:
    logs = step(batch)
  return {name: float(value) for name, value in logs.items()}


def fit(
  model, kept, train, validation, *, epochs, steps, logdir, folder, checkpoint_minutes=None, checkpoint_steps=None
):
  """Fits a compiled model, or goes on with a fit that was killed.

  A fit that goes on from a checkpoint ends with the weights and the history of one that was never interrupted.

  Args:
    model: compiled and built `tf_keras` model or `Distiller`.
    kept: the part of it to keep when it is at its best.
    train: function from the number of a step to the `tf.data` data set of all steps from that one on, without end, or
      of `every` so many-th of them; see `tfkd.data.batches`, first_step and every.
    validation: `tf.data` data set, evaluated whole after every epoch.
    epochs: number of epochs.
    steps: of an epoch.
    logdir: folder for TensorBoard; emptied first, unless the fit goes on.
    folder: for checkpoints, and `best.keras`, the part to keep as it was after its epoch of best accuracy. It is the
      caller's to remove.
    checkpoint_minutes, checkpoint_steps: how often checkpoints are written, see `Checkpoints`.

  Returns:
    history: dict from name to list of float, one for each epoch. Where the optimizer averages weights, the model ends
      with the averages, and the last validation is theirs.
    seconds: of the fit, with its tracing and validations; those of an earlier process are counted up to the checkpoint.

  Raises:
    FloatingPointError: an input or an answer of the teacher is not finite, or the loss became NaN or infinite, in
      training or in the last validation.
    SystemExit: of code 0, the process was sent SIGTERM; started again, the fit goes on.
  """
  checkpoints = Checkpoints(model, folder, epochs, steps, checkpoint_minutes, checkpoint_steps)
  # Metrics have variables once they were used.
  checkpoints.restore(lambda: evaluate(model, validation.take(1)))
  writes = is_chief(model.distribute_strategy)
  if not checkpoints.first_step and writes and tf.io.gfile.exists(logdir):
    tf.io.gfile.rmtree(logdir)
  best = os.path.join(folder, "best.keras")
  callbacks = [KeepBest(kept, best, checkpoints.history)]
  if writes:
    callbacks.append(keras.callbacks.TensorBoard(logdir, write_graph=False))
  if is_asynchronous(model.distribute_strategy):
    callbacks, validation_data = [_Validation(model, validation), *callbacks], None
    data = keras.utils.experimental.DatasetCreator(
      lambda worker: train(checkpoints.first_step + worker.input_pipeline_id, every=worker.num_input_pipelines)
    )
  else:
    data, validation_data = train(checkpoints.first_step), validation
  try:
    with checkpoints.saving_at_sigterm():
      model.fit(
        data,
        validation_data=validation_data,
        epochs=epochs,
        steps_per_epoch=steps,
        callbacks=[*callbacks, checkpoints],
        verbose=1 if sys.stdout.isatty() else 2,
      )
  except tf.errors.InvalidArgumentError as error:
    # TensorFlow writes much around it.
    found = re.search(rf"\[([^]]*{NOT_FINITE}[^]]*)\] (\[[^]]*\]) \[([^]]*)\]", error.message)
    if not found:
      raise
    raise FloatingPointError(" ".join(found.groups())) from error
  history = checkpoints.history
  if writes:
    logging.info("wrote TensorBoard logs to %s", logdir)
  if model.optimizer.use_ema:
    for name, value in evaluate(model, validation).items():
      history[f"val_{name}"][-1] = value
  last = history["val_loss"][-1]
  if not math.isfinite(last):
    raise FloatingPointError(
      f"loss is {last} on the validation data after the last step: lower --learning_rate. The best model is in {best}."
    )
  return history, checkpoints.seconds
