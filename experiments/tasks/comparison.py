"""The frame of all tasks: students of labels and of two methods, float and as files, in one table."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import tf_keras as keras
from absl import flags

from experiments import quantized, run_flags  # noqa: F401  (defines --qat_epochs)
from experiments._run import Experiment, measured_files
from experiments.tasks.report import write_report
from tfkd import deploy
from tfkd.objectives import Objective
from tfkd.sweeps import FLOAT, ArrayData, StudentSpec, Sweep, SweepConfig

LABELS = "labels"
"""The method that all others are compared with."""


class Method(NamedTuple):
  """How students of one row of the table learn."""

  objectives: tuple[Objective, ...] = ()
  hard_loss_weight: float = 1.0
  split: str = "train"
  """The split that they learn from."""
  epoch_share: float = 1.0
  """Factor of the number of epochs, for splits of another size."""


class Task(NamedTuple):
  """One task."""

  name: str
  data: Callable[[], ArrayData]
  """Makes the data set, from the flags."""
  teacher: Callable[[Any, Any], Any]
  """See `tfkd.sweeps.SweepConfig`."""
  student: Callable[[Any, Any], keras.Model]
  methods: Mapping[str, Method]
  scheme: str
  """Of the files. Quantization-aware students continue from the float student of their method and seed."""
  columns: Sequence[str]
  """Measurements in the table, by which the report compares the methods; see `tfkd.sweeps.ArrayData`."""
  metrics: Callable[[], Any] | None = None
  """Makes further metrics of the files, see `tfkd.deploy.evaluate`."""
  has_trained_teacher: Callable[[], bool] = lambda: False
  """Whether the teacher's function returns a teacher that is trained already."""


def experiment(task: Task, presets: Mapping[str, Mapping[str, Any]]) -> Experiment:
  """Makes the script of a task.

  Args:
    task: the task; its methods include `LABELS`.
    presets: see `run_flags.start`.
  """
  return Experiment(
    f"tasks/{task.name}",
    presets,
    students=lambda sweep: _students(task),
    write_report=lambda sweep, files: write_report(task, sweep.path(), sweep.results.rows(), files, run_flags.seeds()),
    check=_check,
    measure=functools.partial(_measured, task),
    data=task.data,
    configure=functools.partial(_configured, task),
  )


def _check() -> None:
  for name in ("scheme", "teacher", "student"):
    if flags.FLAGS[name].value is not None:
      raise ValueError(f"{name}={flags.FLAGS[name].value} has no effect here: the script has its own.")


def _configured(task: Task, config: SweepConfig) -> SweepConfig:
  epochs = 0 if task.has_trained_teacher() else config.teacher_epochs
  return config._replace(teacher=task.teacher, student=task.student, teacher_epochs=epochs)


def _students(task: Task) -> list[StudentSpec]:
  kinds = [float_student] if task.scheme == FLOAT else [float_student, file_student]
  # Seeds last: students that differ only in their seed share a trace.
  return [make(task, method, seed) for method in task.methods for make in kinds for seed in run_flags.seeds()]


def float_student(task: Task, method: str, seed: int) -> StudentSpec:
  """Returns the float student of a method."""
  chosen = task.methods[method]
  return StudentSpec(
    task.name,
    method,
    FLOAT,
    seed,
    chosen.objectives,
    chosen.hard_loss_weight,
    epochs=_epochs("epochs", chosen),
    split=chosen.split,
    export=task.scheme == FLOAT,
  )


def file_student(task: Task, method: str, seed: int) -> StudentSpec:
  """Returns the student whose file is measured."""
  student = float_student(task, method, seed)
  if task.scheme == FLOAT:
    return student
  epochs = _epochs("qat_epochs", task.methods[method])
  return student._replace(scheme=task.scheme, start=student, epochs=epochs, export=None)


def _epochs(flag: str, method: Method) -> int:
  return max(1, round(flags.FLAGS[flag].value * method.epoch_share))


def _measured(task: Task, sweep: Sweep) -> list[dict]:
  def measure(key):
    student = file_student(task, key["method"], key["seed"])
    path, test = sweep.path("students", f"{student.name}.tflite"), sweep.examples.batches("test")
    row = deploy.evaluate(path, test, sweep.load(student))
    measured = {} if task.metrics is None else deploy.evaluate(path, test, metrics=task.metrics())
    further = {name: value for name, value in measured.items() if name not in row}
    return {"scheme": task.scheme, **row, "further": further}

  keys = [{"method": method, "seed": seed} for method in task.methods for seed in run_flags.seeds()]
  return measured_files(sweep, keys, measure)
