"""The students of a sweep: each is built, trained, measured, exported and recorded."""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import tf_keras as keras
from absl import logging

from tfkd import Distiller, models, quantization
from tfkd.storage.digests import sha256_of_arrays
from tfkd.sweeps import rows, tensorboard
from tfkd.sweeps.configuration import FLOAT, StudentSpec
from tfkd.sweeps.export import export, file_metadata
from tfkd.sweeps.networks import Network, name_of, structure_digest
from tfkd.sweeps.teacher_stage import TeacherStage
from tfkd.sweeps.trace_sharing import SharedDistillers, with_variables
from tfkd.sweeps.trainer import Trainer
from tfkd.teachers import CachedTeacher
from tfkd.training import evaluate, is_parameter_server


class StudentStage:
  """Trains students of one teacher; those of the same graph share a trace.

  Args:
    trainer: of the sweep.
    teacher: stage of the teacher, whose `ensure` was called before a student is trained.
  """

  def __init__(self, trainer: Trainer, teacher: TeacherStage):
    self._trainer, self._teacher = trainer, teacher
    self._workspace = trainer.workspace
    self._distillers = SharedDistillers()
    self._functions: dict[Any, int] = {}  # Numbers of networks that are functions; their names may be equal.

  def path(self, student: StudentSpec) -> str:
    """Returns the path of a student's `.keras` file."""
    return self._workspace.path("students", f"{student.name}.keras")

  def load(self, student: StudentSpec) -> keras.Model:
    """Reads a trained student as a model of this process alone."""
    return quantization.load(self.path(student))

  def check(self, students: Sequence[StudentSpec]) -> None:
    """Checks students before the teacher is trained, since every error would cost that time.

    Raises:
      ValueError: a scheme does not fit a network, an objective does not fit the networks, a student cannot start from
        the weights that it names, or the results of a student are of another network of the same name.
    """
    for student in students:
      self._check_start(student)
      self._check_split(student)
      self._check_function(student)
    missing = [student for student in students if not self._workspace.results.find(**student.key)]
    checked = set()
    for student in missing:
      taps = tuple((type(o), *o.teacher_layers, *o.student_layers) for o in student.objectives if o.teacher_layers)
      key = (self._network(student), student.scheme, student.adapt, taps)
      if key not in checked and (taps or student.scheme != FLOAT):
        self._check_networks(student)
      checked.add(key)

  def train(self, student: StudentSpec) -> dict[str, Any]:
    """Trains a student, or resumes its training; saves and exports it.

    Returns:
      Its row, which is added to the results.
    """
    trainer = self._trainer
    teacher, cached = self._teacher_of(student)
    distiller = self.distiller(student, teacher)
    model = distiller.student
    epochs, split = self._epochs(student), student.split
    history, seconds = trainer.fit(distiller, student.name, student.seed, epochs, cached, split)
    path = self.path(student)
    self._workspace.save(model, path)
    logging.info("SHA-256 of its weights: %s", sha256_of_arrays(model.get_weights()))  # Logged by every worker.
    logs = rows.last_validation(history)
    outputs = trainer.examples.outputs
    measured = outputs.measured(logs, "hard_loss", distiller.output_names)
    if measured.keys() != set(outputs.measurements):
      logs |= self._agreements(student, model)
      measured = outputs.measured(logs, "hard_loss", distiller.output_names)
    row = student.key | measured
    if callable(student.network):
      row["layers_sha256"] = structure_digest(trainer.build(student.network))
    if self._workspace.writes and (student.scheme != FLOAT if student.export is None else student.export):
      row |= self._export(student, model)
    self._workspace.finish(student.name, path)
    row = trainer.add(row, model, history, seconds, split)
    if self._workspace.writes:
      measurements = trainer.examples.outputs.measurements
      tensorboard.log(self._workspace.log_dir(student.name), student, row, trainer.config.epochs, measurements)
    return row

  def distiller(self, student: StudentSpec, teacher: Any) -> Distiller:
    """Makes a compiled distiller in the state in which the student's training starts.

    Args:
      student: the student.
      teacher: of `Distiller`.
    """
    trainer, config = self._trainer, self._trainer.config
    keras.utils.set_random_seed(student.seed)
    with trainer.scope(config.mixed_precision if student.scheme == FLOAT else "none"):
      network = self._network(student)
      model = trainer.build(network)
      if student.adapt:
        model = student.adapt(self._teacher.model, model)
      self._initialize(model, student)
      if student.scheme != FLOAT:
        calibration_data = trainer.examples.calibration_batches()
        model = quantization.quantize(model, student.scheme, calibration_data=calibration_data)
      objectives = _copies(student.objectives)
      hard_loss_weight = with_variables(objectives, student.hard_loss_weight)
      distiller = Distiller(teacher, model, objectives, hard_loss_weight=hard_loss_weight)
      trainer.compile(distiller, self._epochs(student), config.learning_rate, student.split)
      if not isinstance(network, str):
        network = self._functions.setdefault(network, len(self._functions))
      adapt = student.adapt and student.method
      recipe = [network, student.scheme, adapt, self._epochs(student), student.split]
      return self._distillers.share(distiller, recipe)

  def _check_networks(self, student):
    """Builds the student with untrained weights; raises the errors that its training would raise."""
    taps = any(objective.teacher_layers for objective in student.objectives)
    model = self._trainer.build(self._network(student))
    teacher = self._trainer.build(self._trainer.config.teacher) if student.adapt or taps else None
    if student.adapt:
      model = student.adapt(teacher, model)
    if student.scheme != FLOAT:
      quantization.check(model, student.scheme)
    if taps:
      Distiller(teacher, model, _copies(student.objectives))

  def _check_start(self, student):
    config, network, start = self._trainer.config, self._network(student), student.start
    if isinstance(start, StudentSpec):
      other = self._network(start)
      if (other, start.scheme) != (network, FLOAT):
        raise ValueError(
          f"a student of {name_of(network)} can start from a float student of the same network; {start.name} is "
          f"{start.scheme}, of {name_of(other)}."
        )
    elif start not in ("scratch", "teacher", "checkpoint"):
      raise ValueError(f'start must be "scratch", "teacher", "checkpoint" or a StudentSpec; got {start!r}.')
    if start == "teacher" and network != config.teacher:
      raise ValueError(
        f"{student.scheme} students start with the teacher's weights: student={name_of(network)} must be "
        f"teacher={name_of(config.teacher)}."
      )
    if start == "checkpoint" and not config.student_checkpoint:
      raise ValueError('students with start="checkpoint" need a student_checkpoint in the configuration.')

  def _check_split(self, student):
    examples = self._trainer.examples
    examples.num_examples(student.split)
    if student.hard_loss_weight and not examples.has_labels(student.split):
      raise ValueError(
        f"{student.name} is trained on split {student.split!r}, which has no labels, with hard_loss_weight="
        f"{student.hard_loss_weight}: set it to 0."
      )

  def _check_function(self, student):
    """Refuses to skip a student whose function builds another network than it did for the results."""
    if not callable(student.network):
      return  # The configuration's networks are compared when the work directory is claimed.
    for row in self._workspace.results.find(**student.key):
      if row["layers_sha256"] != structure_digest(self._trainer.build(student.network)):
        raise ValueError(
          f"the results of {student.name} belong to a different network than {name_of(student.network)} builds now: "
          "rename the function, or use another workdir."
        )

  def _initialize(self, model, student):
    """Gives a float student the weights that it starts from."""
    if student.start == "teacher":
      model.set_weights(self._teacher.model.get_weights())
    elif isinstance(student.start, StudentSpec):
      model.set_weights(self.load(student.start).get_weights())
    elif student.start == "checkpoint":
      models.load_torch_weights(model, str(self._trainer.config.student_checkpoint), head=False)

  def _teacher_of(self, student) -> tuple[Any, Mapping[str, CachedTeacher]]:
    """Returns the teacher of a student, and the caches by split if its outputs are cached.

    Features, and examples that change in every epoch, need the teacher online; labels alone need no teacher.
    """
    if any(objective.teacher_layers for objective in student.objectives):
      return self._teacher.model, {}
    cached = self._teacher.outputs
    if student.split in cached:
      return cached[student.split], cached
    reads_teacher = any(objective.reads_teacher for objective in student.objectives)
    return (self._teacher.model if reads_teacher else None), {}

  def _agreements(self, student, model):
    """Measures the agreements of a student that was trained on labels alone, as logs of `evaluate`."""
    trainer, cached = self._trainer, self._teacher.outputs["test"]
    is_local = is_parameter_server(trainer.strategy)
    with contextlib.nullcontext() if is_local else trainer.scope("none"):
      objectives = trainer.examples.outputs.compared()
      distiller = Distiller(cached, self.load(student) if is_local else model, objectives, hard_loss_weight=0)
      trainer.compile(distiller, 0, 0.0)
    logs = evaluate(distiller, trainer.examples.test_batches(cached))
    return {name: value for name, value in logs.items() if name.endswith("agreement")}

  def _export(self, student, model):
    trainer, examples = self._trainer, self._trainer.examples
    local = self.load(student) if trainer.needs_copies else model
    fields = file_metadata(trainer.config, examples, student)
    stem = self.path(student).removesuffix(".keras")
    return export(local, stem, examples.batches("test"), outputs=examples.outputs, fields=fields)

  def _network(self, student) -> Network:
    return self._trainer.config.student if student.network is None else student.network

  def _epochs(self, student):
    return student.epochs or self._trainer.config.epochs


def _copies(objectives):
  """A layer belongs to one distiller, and a sweep may list one objective for several seeds."""
  return [type(objective).from_config(objective.get_config()) for objective in objectives]
