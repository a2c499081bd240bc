"""The teacher of a sweep: trained or read from a checkpoint once, and run over the data set once."""

import functools
import os
import shutil
import time
from collections.abc import Callable, Mapping

import tensorflow as tf
import tf_keras as keras
from absl import logging

from tfkd import models, quantization
from tfkd.sweeps import rows
from tfkd.sweeps.trainer import Trainer
from tfkd.teachers import CachedTeacher, cache
from tfkd.training import barrier, evaluate, fit_head, is_parameter_server


class TeacherStage:
  """Trains the teacher and caches its outputs, as far as the workspace lacks them.

  Args:
    trainer: of the sweep.

  Raises:
    ValueError: teacher_head_only has no checkpoint, or needs another strategy.
  """

  def __init__(self, trainer: Trainer):
    config = trainer.config
    if config.teacher_head_only and not config.teacher_checkpoint:
      raise ValueError("teacher_head_only trains the last layer of a teacher_checkpoint; there is none.")
    if config.teacher_head_only and is_parameter_server(trainer.strategy):
      raise ValueError(
        "teacher_head_only trains in one process: train the teacher with another strategy first; the workdir stores it."
      )
    self._trainer = trainer
    self._workspace = trainer.workspace
    self._path = trainer.workspace.path("teacher", "model.keras")
    self.outputs: Mapping[str, CachedTeacher] = {}
    """Cached outputs by split, after `ensure`: of "test", and of "train" unless examples are always new."""

  def ensure(self) -> None:
    """Trains the teacher unless the workspace has it, and caches its outputs unless the workspace has them."""
    if not (os.path.exists(self._path) and self._workspace.results.find(role="teacher")):
      self._train()
      self.outputs = {}
    if not self.outputs:  # Read once: students of another object would need another trace.
      self.outputs = {split: self._cached(*source) for split, source in self._trainer.examples.cacheable().items()}

  def load(self) -> keras.Model:
    """Reads the trained teacher as a model of this process alone."""
    return quantization.load(self._path)

  @functools.cached_property
  def model(self) -> keras.Model:
    """The trained teacher, read once for all students, in the strategy's scope: every replica has its weights."""
    with self._trainer.strategy.scope():
      return self.load()

  def _train(self):
    trainer, config = self._trainer, self._trainer.config
    keras.utils.set_random_seed(0)
    with trainer.scope(config.mixed_precision):
      teacher = trainer.build(config.teacher)
      trainer.compile(teacher, config.teacher_epochs, config.teacher_learning_rate)
    if config.teacher_checkpoint:
      models.load_torch_weights(teacher, config.teacher_checkpoint, head=not config.teacher_head_only)
      logging.info("the teacher has the weights of %s", config.teacher_checkpoint)
    history, seconds = self._fit(teacher)
    self._workspace.remove("teacher")  # It may hold outputs of an earlier teacher.
    self._workspace.save(teacher, self._path)
    self._workspace.finish("teacher", self._path)
    self._workspace.remove("checkpoints")  # Those of students of an earlier teacher.
    trainer.add(rows.teacher_row(history), teacher, history, seconds)

  def _fit(self, teacher):
    """Trains the whole teacher, its last layer, or nothing; returns history and seconds."""
    trainer, config, examples = self._trainer, self._trainer.config, self._trainer.examples
    if config.teacher_head_only:
      logging.info("training the teacher's last layer: %s, %d epochs", examples.name, config.teacher_epochs)
      with trainer.strategy.scope():
        return fit_head(
          teacher,
          examples.batches("train"),
          examples.batches("test"),
          optimizer=trainer.optimizer(config.teacher_epochs, config.teacher_learning_rate),
          epochs=config.teacher_epochs,
          batch_size=config.batch_size,
          **trainer.fit_options("teacher"),
        )
    if config.teacher_checkpoint or not config.teacher_epochs:
      start = time.perf_counter()
      measured = evaluate(teacher, examples.test_batches())
      return {f"val_{name}": [value] for name, value in measured.items()}, time.perf_counter() - start
    logging.info("training the teacher: %s, %d epochs", examples.name, config.teacher_epochs)
    return trainer.fit(teacher, "teacher", 0, config.teacher_epochs)

  def _cached(self, directory: str, batches: Callable[[], tf.data.Dataset]) -> CachedTeacher:
    path = self._workspace.path("teacher", "outputs", directory)
    written = self._write(path, batches) if self._workspace.writes else None
    barrier(self._trainer.strategy)
    return CachedTeacher(path) if written is None else written  # Opening reads the whole file, for its CRC-32.

  def _write(self, path, batches):
    try:
      # Its data need no check: the workspace belongs to these data, and a new teacher removes it.
      return CachedTeacher(path)
    except FileNotFoundError:
      pass
    except ValueError as error:
      logging.warning("%s", error)
      shutil.rmtree(path)
    return cache(self.load() if self._trainer.needs_copies else self.model, batches(), path)
