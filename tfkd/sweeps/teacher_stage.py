"""The teacher of a sweep: trained or read from a checkpoint once, and run over the data set once."""

import functools
import os
import shutil
import time
from collections.abc import Callable, Sequence
from typing import Any

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
    ValueError: teacher_head_only has no checkpoint, or needs another strategy or task.
  """

  def __init__(self, trainer: Trainer):
    config = trainer.config
    if config.teacher_head_only and not config.teacher_checkpoint and isinstance(config.teacher, str):
      raise ValueError(
        "teacher_head_only trains the last layer of a teacher_checkpoint, or of a function that builds a pretrained "
        "teacher; there is neither."
      )
    if config.teacher_head_only and is_parameter_server(trainer.strategy):
      raise ValueError(
        "teacher_head_only trains in one process: train the teacher with another strategy first; the workdir stores it."
      )
    if config.teacher_head_only and (trainer.examples.outputs.task != "classes" or trainer.examples.has_weights):
      raise ValueError(
        f"teacher_head_only is for single class labels without weights; the task of {trainer.examples.name} is "
        f"{trainer.examples.outputs.task!r}: train the whole teacher."
      )
    self._trainer = trainer
    self._workspace = trainer.workspace
    self._path = trainer.workspace.path("teacher", "model.keras")
    self.outputs: dict[str, CachedTeacher] = {}
    """Cached outputs by split, after `ensure`: of "test", and unless examples are always new of "train" and of further
    splits that students are trained on."""

  def ensure(self, splits: Sequence[str] = ()) -> None:
    """Trains the teacher unless the workspace has it, and caches its outputs unless the workspace has them.

    Args:
      splits: further splits than "train" that students are trained on.
    """
    if not self._workspace.results.find(role="teacher") or (self._other is None and not os.path.exists(self._path)):
      self.outputs = {}
      if self._other is None:
        self._train()
      else:
        self._workspace.remove("teacher")  # It may hold outputs of an earlier teacher.
        self._cache(splits)
        self._measure_other()
    self._cache(splits)

  def load(self) -> Any:
    """Reads the trained teacher as a model of this process alone, or returns one that is no Keras model."""
    return quantization.load(self._path) if self._other is None else self._other

  @functools.cached_property
  def _other(self) -> Any:
    """The teacher that the configuration's function returns, if it is no Keras model, else None."""
    config = self._trainer.config
    if isinstance(config.teacher, str) or config.teacher_epochs or os.path.exists(self._path):
      return None
    made = self._trainer.build(config.teacher)
    return None if isinstance(made, keras.Model) else made

  @functools.cached_property
  def model(self) -> Any:
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
    outputs = trainer.examples.outputs
    measured = outputs.measured(rows.last_validation(history), "loss", teacher.output_names)
    self._workspace.remove("teacher")  # It may hold outputs of an earlier teacher.
    self._workspace.save(teacher, self._path)
    self._workspace.finish("teacher", self._path)
    self._workspace.remove("checkpoints")  # Those of students of an earlier teacher.
    trainer.add(rows.teacher_row(outputs, measured), teacher, history, seconds)

  def _measure_other(self):
    """Adds the row of a teacher that is no Keras model, from its cached outputs."""
    start, outputs = time.perf_counter(), self._trainer.examples.outputs
    batches = self._trainer.examples.test_batches(self.outputs["test"])
    measured = outputs.evaluate((given[1], labels, *(weights or [None])) for given, labels, *weights in batches)
    self._trainer.add(rows.teacher_row(outputs, measured), self._other, {}, time.perf_counter() - start)

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

  def _cache(self, splits):
    """Reads or writes the outputs of "test", and of the splits whose outputs can be cached."""
    sources = self._trainer.examples.cacheable(sorted({"train", *splits}))
    # Each is read once: students of another object would need another trace.
    self.outputs |= {split: self._cached(*sources[split]) for split in sources if split not in self.outputs}

  def _cached(self, directory: str, batches: Callable[[], tf.data.Dataset]) -> CachedTeacher:
    path = self._workspace.path("teacher", "outputs", directory)
    written = self._write(path, batches) if self._workspace.writes else None
    barrier(self._trainer.strategy)
    return CachedTeacher(path) if written is None else written

  def _write(self, path, batches):
    try:
      cached = CachedTeacher(path)
      cached.verify()  # A damaged cache is written again, rather than found in the middle of a training.
      if self._other is None:
        # Its data need no check: the workspace belongs to these data, and a new teacher removes it.
        return cached
      # Two functions of one name cannot be told apart without running them, as `cache` does.
    except FileNotFoundError:
      pass
    except ValueError as error:
      logging.warning("%s", error)
      shutil.rmtree(path)
    return cache(self.load() if self._trainer.needs_copies else self.model, batches(), path)
