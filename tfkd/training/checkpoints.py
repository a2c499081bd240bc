"""Checkpoints of a fit, between steps too: a killed fit resumes and ends as an uninterrupted one does."""

import contextlib
import os
import re
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

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
  """Writes checkpoints of a model during a fit, and restores the last intact one.

  A checkpoint is a directory `<epoch>-<step>` with the variables of model, optimizer and metrics, the history so far,
  and the SHA-256 of each file. It is renamed into place when it is complete; the last two are kept.

  Args:
    model: compiled and built. If it is distributed over workers, all of them must call all methods.
    directory: directory of the checkpoints.
    epochs: number of epochs of the fit.
    steps: number of steps per epoch.
    every_minutes: interval between checkpoints, which are written after the next step; None disables it.
    every_steps: interval between checkpoints; None disables it.
  """

  def __init__(
    self,
    model: keras.Model,
    directory: str,
    epochs: int,
    steps: int,
    every_minutes: float | None = None,
    every_steps: int | None = None,
  ):
    super().__init__()
    self._directory = directory
    self._epochs, self._steps = epochs, steps
    self._every_seconds = 60 * every_minutes if every_minutes is not None else float("inf")
    self._every_steps = every_steps or float("inf")
    self._fitted = model
    self._started = time.perf_counter()
    self.epoch = 0
    """Epoch of the next step."""
    self.step = 0
    """Position of the next step in its epoch."""
    self.history: dict[str, list[float]] = {}
    """Metrics of the finished epochs."""
    self._restored: str | None = None
    self._is_asked_to_end = False
    # Signals reach workers at different steps, at which they cannot write a checkpoint together.
    self._saves_when_asked = not is_multi_worker(model.distribute_strategy)
    # Parameter server workers run steps asynchronously until the end of the epoch.
    self._saves_inside_epochs = not is_parameter_server(model.distribute_strategy)
    self._supports_tf_logs = True  # Keras' name: logs stay tensors, since they are not read after every step.
    self._reset()

  @property
  def first_step(self) -> int:
    """Number of the next step, counted over all epochs."""
    return self.epoch * self._steps + self.step

  @property
  def seconds(self) -> float:
    """Duration of the fit so far, including earlier processes up to their checkpoints."""
    return time.perf_counter() - self._started

  def restore(self, build: Callable[[], Any]) -> None:
    """Restores the last intact checkpoint, if there is one; damaged ones are logged and skipped.

    Args:
      build: function that creates all variables of the model; called only if there is a checkpoint.
    """
    for name in sorted(self._names(), reverse=True):
      path = os.path.join(self._directory, name)
      try:
        manifest = read_manifest(path)
        build()
        self._read(path)
      except (OSError, ValueError, KeyError, AssertionError, tf.errors.OpError) as error:
        logging.warning("checkpoint %s is damaged and skipped: %s", path, error)
        continue
      self.epoch, self.step, self.history = manifest["epoch"], manifest["step"], manifest["history"]
      self._restored = path
      self._started -= manifest["seconds"]
      logging.info("resuming at epoch %d, step %d, from %s", self.epoch + 1, self.step, path)
      return

  @contextlib.contextmanager
  def saving_at_sigterm(self) -> Iterator[None]:
    """Handles SIGTERM in its context: after the next step a checkpoint is written and the process exits with code 0."""
    if threading.current_thread() is not threading.main_thread():
      yield  # Only the main thread can handle signals.
      return

    def ask(*_):
      self._is_asked_to_end = True

    before = signal.signal(signal.SIGTERM, ask)
    try:
      yield
    finally:
      signal.signal(signal.SIGTERM, before)

  def on_train_begin(self, logs: Any = None) -> None:
    # Keras reads the first epoch and step from this, as from its BackupAndRestore. That is not used here since its
    # checkpoints do not contain metrics and cannot be verified.
    self._fitted._training_state = self
    self._reset()

  def maybe_load_initial_counters_from_ckpt(self, *args: Any, **kwargs: Any) -> tuple[int, int]:
    """Returns epoch and step at which Keras starts."""
    self._fitted._training_state = None  # Only this fit starts there; a later fit has its own initial_epoch.
    return self.epoch, self.step

  def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
    self.epoch = epoch
    if self._restored and self.step:
      self._read(self._restored)  # A second time, since Keras has just reset the metrics of the epoch.
    self._restored = None

  def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
    # With `steps_per_execution`, `batch` is the last step of the execution.
    self._since_steps += batch + 1 - self.step
    self.step = batch + 1
    # After the last step of an epoch, `on_epoch_end` writes the checkpoint, which then contains the validation.
    if self.step < self._steps and self._saves_inside_epochs and self._is_due():
      self.save()
    self._end_if_asked()

  def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
    self._end_if_asked()

  def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
    for name, value in logs.items():
      self.history.setdefault(name, []).append(float(value))
    self.epoch, self.step = epoch + 1, 0
    if self.epoch < self._epochs and self._is_due():
      self.save()
    self._end_if_asked()

  def _end_if_asked(self):
    if self._is_asked_to_end:
      logging.info("exiting after SIGTERM; the same call resumes from %s", self._directory)
      sys.exit(0)

  def _is_due(self):
    if self._is_asked_to_end and self._saves_when_asked:
      return True
    return self._since_steps >= self._every_steps or time.monotonic() - self._since >= self._every_seconds

  def _reset(self):
    self._since, self._since_steps = time.monotonic(), 0

  def save(self) -> None:
    """Writes a checkpoint and removes all but the last two. All workers call this; only the chief's file is kept."""
    is_kept = is_chief(self._fitted.distribute_strategy)
    path = os.path.join(self._directory, f"{self.epoch:06d}-{self.step:09d}")
    with path_to_write(path, is_kept) as kept, atomic_path(kept) as temporary:
      os.mkdir(temporary)
      self._checkpoint().write(os.path.join(temporary, _VARIABLES))
      files = {name: sha256_of_file(os.path.join(temporary, name)) for name in sorted(os.listdir(temporary))}
      manifest = {"epoch": self.epoch, "step": self.step, "history": self.history, "seconds": self.seconds}
      write_text(os.path.join(temporary, _MANIFEST), to_checked_json(manifest | {"files": files}))
    for name in sorted(self._names())[:-_KEPT] if is_kept else ():
      shutil.rmtree(os.path.join(self._directory, name), ignore_errors=True)
    self._reset()

  def _read(self, path):
    self._checkpoint().read(os.path.join(path, _VARIABLES)).assert_existing_objects_matched()

  def _checkpoint(self):
    return tf.train.Checkpoint(model=self._fitted, metrics=list(self._fitted.metrics))

  def _names(self):
    if not os.path.isdir(self._directory):
      return []
    return [name for name in os.listdir(self._directory) if re.fullmatch(r"\d{6}-\d{9}", name)]


def read_manifest(path: str) -> Mapping[str, Any]:
  """Reads the manifest of a checkpoint and verifies all files.

  Args:
    path: directory of the checkpoint.

  Returns:
    dict with epoch, step, history, seconds and files.

  Raises:
    OSError: a file is missing.
    ValueError: a file is damaged.
  """
  with open(os.path.join(path, _MANIFEST), encoding="utf-8") as file:
    manifest = from_checked_json(file.read())
  for name, digest in manifest["files"].items():
    if sha256_of_file(os.path.join(path, name)) != digest:
      raise ValueError(f"the SHA-256 of {name} differs from the manifest")
  return manifest
