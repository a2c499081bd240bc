"""One fit with what every fit has: TensorBoard, a stop at the first NaN, and averaged weights where asked for."""

import math
import os
import sys

import tensorflow as tf
import tf_keras as keras
from absl import logging

from tfkd.quantization import save


class StopOnNaN(keras.callbacks.Callback):
  """Stops at the first step whose loss is not finite, and keeps the model as it was an epoch before.

  Args:
    model: what to keep, the student.
    path: where to keep it; the file is there from the first epoch on.
  """

  def __init__(self, model, path):
    super().__init__()
    self._kept = model
    self._path = path
    self._step = 0

  def on_train_begin(self, logs=None):
    save(self._kept, self._path)

  def on_train_batch_end(self, batch, logs=None):
    self._step += 1
    if not math.isfinite(logs["loss"]):
      raise FloatingPointError(
        f"loss is {logs['loss']} at step {self._step} (batch {batch} of its epoch): lower --learning_rate, or look for "
        f"NaN in the data. The model before this epoch is in {self._path}."
      )

  def on_epoch_end(self, epoch, logs=None):
    save(self._kept, self._path)


def fit(model, kept, train, validation, *, epochs, logdir, checkpoint):
  """Fits a compiled model.

  Args:
    model: compiled `tf_keras` model or `Distiller`.
    kept: the part of it to keep when the loss is NaN.
    train, validation: `tf.data` data sets; validation is evaluated whole after every epoch.
    epochs: number of epochs.
    logdir: folder for TensorBoard; emptied first, so that a repeated run does not draw two curves.
    checkpoint: path ending in `.keras` for the last good model; removed when the fit succeeds.

  Returns:
    dict from name to list of float, one for each epoch. Where the optimizer averages weights, the model ends with the
    averages, and the last validation is theirs.

  Raises:
    FloatingPointError: the loss became NaN or infinite, in training or in the last validation.
  """
  if tf.io.gfile.exists(logdir):
    tf.io.gfile.rmtree(logdir)
  callbacks = [
    StopOnNaN(kept, checkpoint),
    keras.callbacks.TensorBoard(logdir, write_graph=False),
  ]
  history = model.fit(
    train,
    validation_data=validation,
    epochs=epochs,
    callbacks=callbacks,
    verbose=1 if sys.stdout.isatty() else 2,
  )
  logging.info("wrote TensorBoard logs to %s", logdir)
  if model.optimizer.use_ema:
    for name, value in model.evaluate(validation, verbose=0, return_dict=True).items():
      history.history[f"val_{name}"][-1] = value
  last = history.history["val_loss"][-1]
  if not math.isfinite(last):
    raise FloatingPointError(
      f"loss is {last} on the validation data after the last step: lower --learning_rate. The model is in {checkpoint}."
    )
  os.remove(checkpoint)
  return history.history
