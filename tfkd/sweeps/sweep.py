"""A sweep: one teacher, trained once, and students that learn from it, each trained once."""

import os
from collections.abc import Sequence
from typing import Any

import tf_keras as keras
from absl import logging
from tqdm import tqdm

from tfkd.data import Dataset, info
from tfkd.sweeps import networks, tensorboard
from tfkd.sweeps.configuration import StudentSpec, SweepConfig
from tfkd.sweeps.datasets import ArrayData, DatasetArrays, PipelineData
from tfkd.sweeps.examples import examples_of
from tfkd.sweeps.identity import defaults, identity
from tfkd.sweeps.student_stage import StudentStage
from tfkd.sweeps.teacher_stage import TeacherStage
from tfkd.sweeps.trainer import Trainer
from tfkd.sweeps.workspace import Workspace
from tfkd.training import barrier, is_chief, make_strategy


class Sweep:
  """Trains a teacher and students in a work directory, and skips those that it has.

  Args:
    workdir: directory for results, models and logs, or a `Workspace`.
    config: how all models are trained. A teacher that is a function with trained weights is kept as it is with
      `teacher_epochs=0`.
    data: data set: arrays, functions that return `tf.data` data sets, or a `tfkd.data.Dataset`, read with the
      configuration's data_dir and limit_train; None for the data set that the configuration names.
    overwrite: remove the results of an earlier sweep first.

  Raises:
    ValueError: the directory holds results of another configuration, a name is unknown, a number is out of range, or
      the data are damaged.
    OSError: files of the data set are missing, or another process is using the directory.
  """

  def __init__(
    self,
    workdir: str | os.PathLike | Workspace,
    config: SweepConfig,
    data: ArrayData | PipelineData | Dataset | None = None,
    *,
    overwrite: bool = False,
  ):
    # First of all, since workers must find each other before TensorFlow's first operation.
    strategy = make_strategy(config.strategy)
    for network in (config.teacher, config.student):
      networks.check(network)  # Otherwise a wrong name would be found after the teacher's training.
    source = _source(config, data)
    self.examples = examples_of(source, config, strategy.num_replicas_in_sync)
    self.workspace = workdir if isinstance(workdir, Workspace) else Workspace(workdir, writes=is_chief(strategy))
    self._trainer = Trainer(config, self.examples, self.workspace, strategy)
    self.teacher = TeacherStage(self._trainer)
    self.students = StudentStage(self._trainer, self.teacher)
    self.workspace.claim(identity(config, source), overwrite, defaults())
    barrier(strategy)
    self.results = self.workspace.results
    logging.info("results go to %s", self.path("results.jsonl"))

  @property
  def writes(self) -> bool:
    """Whether this process writes to the work directory: the only one, or the chief of several workers."""
    return self.workspace.writes

  def path(self, *parts: str) -> str:
    """Returns a path inside the work directory."""
    return self.workspace.path(*parts)

  def steps(self, epochs: int) -> int:
    """Returns the number of optimizer steps of a number of epochs."""
    return self._trainer.steps(epochs)

  def train_teacher(self) -> None:
    """Trains the teacher and caches its outputs, unless the work directory has them."""
    self.teacher.ensure()

  def run(self, students: Sequence[StudentSpec]) -> None:
    """Trains the teacher, and the students that the results lack.

    Args:
      students: in the order of training.

    Raises:
      ValueError: a student fails `StudentStage.check`, or two students with different networks have the same key.
    """
    _check_names(students)
    self.students.check(students)
    missing = [student for student in students if not self.results.find(**student.key)]
    self.teacher.ensure([student.split for student in students])
    if self.writes:
      measurements = self.examples.outputs.measurements
      tensorboard.declare(self.path("logs", "hparams"), students, self.results.rows(), measurements)
    logging.info("%d of %d students are trained already", len(students) - len(missing), len(students))
    with tqdm(missing, desc="students", unit="student", dynamic_ncols=True) as bar:
      for student in bar:
        bar.set_postfix_str(student.name)
        self.students.train(student)

  def rows(self, student: StudentSpec) -> list[dict[str, Any]]:
    """Returns the rows of all seeds of a student."""
    key = student.key
    del key["seed"]
    return self.results.find(**key)

  def predict(self, student: StudentSpec, split: str) -> Any:
    """Computes the outputs of a trained student.

    Args:
      student: a student that the results have.
      split: name of a split of the data set.

    Returns:
      float32 [n, classes] or [n, ...], in the order of the examples; a dict of these for several outputs.
    """
    return self.load(student).predict(self.examples.batches(split), verbose=0)

  def load(self, student: StudentSpec) -> keras.Model:
    """Reads a trained student."""
    return self.students.load(student)

  def load_teacher(self) -> Any:
    """Reads the trained teacher; one that is no Keras model is made by its function."""
    return self.teacher.load()


def _source(config: SweepConfig, data: ArrayData | PipelineData | Dataset | None) -> ArrayData | PipelineData:
  if (data is None) == (config.dataset is None):
    raise ValueError(f"a sweep needs either data or SweepConfig.dataset; got data={data}, dataset={config.dataset!r}.")
  if config.dataset is not None:
    data = info(config.dataset, image_size=config.image_size, on_bad_image=config.on_bad_image)
  elif not isinstance(data, Dataset):
    ignored = [name for name in ("data_dir", "limit_train", "image_size", "on_bad_image") if getattr(config, name)]
    if ignored:
      raise ValueError(
        f"{ignored[0]}={getattr(config, ignored[0])!r} is for data that the sweep reads; got {type(data).__name__}: "
        "leave it out."
      )
  if isinstance(data, Dataset):
    return DatasetArrays(data, config.data_dir, config.limit_train)
  if not isinstance(data, (ArrayData, PipelineData)):
    raise TypeError(f"data must be ArrayData, PipelineData or a tfkd.data.Dataset; got {type(data).__name__}.")
  return data


def _check_names(students):
  """Raises if functions of the same name would be taken for one network."""
  found = {}
  for student in students:
    other = found.setdefault(student.name, student)
    if student.network != other.network:
      raise ValueError(
        f"two networks have the name {networks.name_of(student.network)!r}, and their students the same key: give the "
        "functions different names, or the students different choices."
      )
