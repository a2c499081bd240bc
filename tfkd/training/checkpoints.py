"""Checkpoints of a fit, inside epochs too: a training that was killed goes on, and ends as if it had not been."""

import contextlib
import os
import re
import shutil
import signal
import sys
import threading
import time

import tensorflow as tf
import tf_keras as keras
from absl import logging

from tfkd.storage.digests import from_checked_json, sha256_of_file, to_checked_json
from tfkd.storage.files import atomic_path, path_to_write, write_text
from tfkd.training.strategy import is_chief, is_multi_worker, is_parameter_server

_KEPT = 2
_MANIFEST = "manifest.json"
_VARIABLES = "variables"


class Checkpoints(keras.callbacks.Callback):
  """Writes checkpoints of the model that is fitted, and brings it back to the last of them that is whole.

  A checkpoint is a folder `<epoch>-<step>` with the variables of model, optimizer and metrics, the history so far, and
  the SHA-256 of each file. It appears whole or not at all; the last two are kept.

  Args:
    model: compiled and built. It may be distributed: all workers call this alike.
    folder: where checkpoints are.
    epochs, steps: of the whole fit, and of an epoch.
    every_minutes: at the first step after so many minutes; None for no such.
    every_steps: after so many steps; None for no such.
  """

  def __init__(self, model, folder, epochs, steps, every_minutes=None, every_steps=None):
    super().__init__()
    self._folder = folder
    self._epochs, self._steps = epochs, steps
    self._every_seconds = 60 * every_minutes if every_minutes is not None else float("inf")
    self._every_steps = every_steps or float("inf")
    self._fitted = model
    self._started = time.perf_counter()
    self.epoch, self.step, self.history = 0, 0, {}
    """Where the next step is: epoch, step of it, and dict from name to list of float for the epochs before."""
    self._restored = None
    self._is_asked_to_end = False
    # Workers would not write at one step: they are asked at different moments.
    self._saves_when_asked = not is_multi_worker(model.distribute_strategy)
    # Steps that were sent to workers are taken some time before the epoch's end.
    self._saves_inside_epochs = not is_parameter_server(model.distribute_strategy)
    self._supports_tf_logs = True  # Keras': this does not ask what came out of a step.
    self._reset()

  @property
  def first_step(self):
    """Of the training, counted over all epochs."""
    return self.epoch * self._steps + self.step

  @property
  def seconds(self):
    """Since the fit began, without what was lost in between."""
    return time.perf_counter() - self._started

  def restore(self, build):
    """Brings the model to the last checkpoint that is whole, if there is any; damaged ones are named and passed over.

    Args:
      build: function that makes all of the model's variables; called only if there is a checkpoint.
    """
    for name in sorted(self._names(), reverse=True):
      path = os.path.join(self._folder, name)
      try:
        manifest = read_manifest(path)
        build()
        self._read(path)
      except (OSError, ValueError, KeyError, AssertionError, tf.errors.OpError) as error:
        logging.warning("%s is damaged, and is passed over: %s", path, error)
        continue
      self.epoch, self.step, self.history = manifest["epoch"], manifest["step"], manifest["history"]
      self._restored = path
      self._started -= manifest["seconds"]
      logging.info("going on at epoch %d, step %d, from %s", self.epoch + 1, self.step, path)
      return

  @contextlib.contextmanager
  def saving_at_sigterm(self):
    """While this lasts, SIGTERM ends the process at the next step: a checkpoint is written, the exit code is 0."""
    if threading.current_thread() is not threading.main_thread():
      yield  # Python gives signals to the main thread alone.
      return

    def ask(*_):
      self._is_asked_to_end = True

    before = signal.signal(signal.SIGTERM, ask)
    try:
      yield
    finally:
      signal.signal(signal.SIGTERM, before)

  def on_train_begin(self, logs=None):
    # Keras asks this where to begin, as it does for its BackupAndRestore, whose checkpoints do not hold metrics and
    # cannot be verified.
    self._fitted._training_state = self
    self._reset()

  def maybe_load_initial_counters_from_ckpt(self, *args, **kwargs):
    self._fitted._training_state = None  # It is asked once; another fit of the model begins where it says itself.
    return self.epoch, self.step

  def on_epoch_begin(self, epoch, logs=None):
    self.epoch = epoch
    if self._restored and self.step:
      self._read(self._restored)  # Again: Keras has just set the epoch's metrics to zero.
    self._restored = None

  def on_train_batch_end(self, batch, logs=None):
    # With `steps_per_execution`, `batch` is the last of them.
    self._since_steps += batch + 1 - self.step
    self.step = batch + 1
    # An epoch's last step is followed by its validation, and by `on_epoch_end`.
    if self.step < self._steps and self._saves_inside_epochs and self._is_due():
      self.save()
    self._end_if_asked()

  def on_test_batch_end(self, batch, logs=None):
    self._end_if_asked()

  def on_epoch_end(self, epoch, logs=None):
    for name, value in logs.items():
      self.history.setdefault(name, []).append(float(value))
    self.epoch, self.step = epoch + 1, 0
    if self.epoch < self._epochs and self._is_due():
      self.save()
    self._end_if_asked()

  def _end_if_asked(self):
    if self._is_asked_to_end:
      logging.info("ending at SIGTERM; started again, the training goes on from %s", self._folder)
      sys.exit(0)

  def _is_due(self):
    if self._is_asked_to_end and self._saves_when_asked:
      return True
    return self._since_steps >= self._every_steps or time.monotonic() - self._since >= self._every_seconds

  def _reset(self):
    self._since, self._since_steps = time.monotonic(), 0

  def save(self):
    """Writes a checkpoint, and removes those before the last two. All workers call this; the chief keeps it."""
    is_kept = is_chief(self._fitted.distribute_strategy)
    path = os.path.join(self._folder, f"{self.epoch:06d}-{self.step:09d}")
    with path_to_write(path, is_kept) as kept, atomic_path(kept) as temporary:
      os.mkdir(temporary)
      self._checkpoint().write(os.path.join(temporary, _VARIABLES))
      files = {name: sha256_of_file(os.path.join(temporary, name)) for name in sorted(os.listdir(temporary))}
      manifest = {"epoch": self.epoch, "step": self.step, "history": self.history, "seconds": self.seconds}
      write_text(os.path.join(temporary, _MANIFEST), to_checked_json(manifest | {"files": files}))
    for name in sorted(self._names())[:-_KEPT] if is_kept else ():
      shutil.rmtree(os.path.join(self._folder, name), ignore_errors=True)
    self._reset()

  def _read(self, path):
    self._checkpoint().read(os.path.join(path, _VARIABLES)).assert_existing_objects_matched()

  def _checkpoint(self):
    return tf.train.Checkpoint(model=self._fitted, metrics=list(self._fitted.metrics))

  def _names(self):
    if not os.path.isdir(self._folder):
      return []
    return [name for name in os.listdir(self._folder) if re.fullmatch(r"\d{6}-\d{9}", name)]


def read_manifest(path):
  """The manifest of a checkpoint: dict with epoch, step, history, seconds and files.

  Raises:
    OSError: a file is missing.
    ValueError: a file is not as it was written.
  """
  with open(os.path.join(path, _MANIFEST), encoding="utf-8") as file:
    manifest = from_checked_json(file.read())
  for name, digest in manifest["files"].items():
    if sha256_of_file(os.path.join(path, name)) != digest:
      raise ValueError(f"{name} is not as it was written")
  return manifest
