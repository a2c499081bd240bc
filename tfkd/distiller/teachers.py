"""One teacher or several by name: which objective reads which, and which part of a batch."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from tfkd.features import ModelOutputs
from tfkd.objectives import Batch, Objective
from tfkd.teachers import Teacher
from tfkd.teachers.frozen import as_teacher
from tfkd.teachers.protocol import student_inputs


def as_teachers(teacher: Any) -> Mapping[str | None, Teacher]:
  """Returns teachers by name, which cannot be changed; None is the name of a single one.

  Raises:
    TypeError: an entry is no teacher.
    ValueError: a dict is empty, or a name is not a string.
  """
  if teacher is None:
    return MappingProxyType({})
  if not isinstance(teacher, Mapping):
    return MappingProxyType({None: as_teacher(teacher)})
  if not teacher or any(not isinstance(name, str) or not name for name in teacher):
    raise ValueError(f"several teachers are given as a dict from name to teacher; got the names {list(teacher)}.")
  return MappingProxyType({name: as_teacher(part) for name, part in teacher.items()})


def teacher_of(objective: Objective, names: Sequence[str | None]) -> str | None:
  """Returns the name of the teacher that an objective reads, or None: a single teacher, or none.

  Raises:
    ValueError: the objective names no teacher of these, or none where there are several.
  """
  given, known = objective.teacher_name, ", ".join(map(str, names))
  if not names or given in names:
    return given
  if given is not None:
    has = "one teacher without a name: pass a dict" if None in names else f"the teachers {known}"
    raise ValueError(f"objective '{objective.name}' reads teacher {given!r}, and the distiller has {has}.")
  if len(names) > 1 and objective.reads_teacher:
    raise ValueError(f"objective '{objective.name}' names none of the teachers {known}: set its option `teacher`.")
  return names[0] if len(names) == 1 else None


def objectives_by_teacher(
  objectives: Sequence[Objective], names: Sequence[str | None]
) -> dict[str | None, list[Objective]]:
  """Lists the objectives of each teacher, and under None those that read none.

  Raises:
    ValueError: see `teacher_of`.
  """
  found = {name: [] for name in (names or [None])}
  for objective in objectives:
    found.setdefault(teacher_of(objective, names) if names else None, []).append(objective)
  return found


def for_objective(objective: Objective, batch: Batch) -> Batch:
  """Returns the batch with the outputs of the teacher that an objective reads."""
  if not isinstance(batch.teacher, dict):
    return batch
  return batch._replace(teacher=batch.teacher.get(teacher_of(objective, list(batch.teacher))))


def first_outputs(teacher: ModelOutputs | dict[str, ModelOutputs] | None) -> ModelOutputs | None:
  """Returns the outputs of the first of several teachers."""
  return next(iter(teacher.values())) if isinstance(teacher, dict) else teacher


def inputs_of_student(teachers: Mapping[str | None, Teacher], inputs: Any) -> Any:
  """Returns the student's part of a batch, which may also hold outputs of teachers."""
  return student_inputs(_in_data(teachers), inputs)


def inputs_of_teacher(teachers: Mapping[str | None, Teacher], name: str | None, inputs: Any) -> Any:
  """Returns the part of a batch that one teacher reads.

  With several teachers the data set yields (inputs, {name: outputs}) for those whose outputs are part of it.

  Raises:
    ValueError: the batch has no outputs of this name.
  """
  if name is None or _in_data(teachers) is None:
    return inputs
  own = inputs_of_student(teachers, inputs)
  if not hasattr(teachers[name], "student_inputs"):
    return own
  outputs = inputs[1]
  if not isinstance(outputs, Mapping) or name not in outputs:
    found = f"of {', '.join(map(str, outputs))}" if isinstance(outputs, Mapping) else f"a {type(outputs).__name__}"
    raise ValueError(
      f"with several teachers, teacher {name!r} reads batches of ((inputs, {{{name!r}: outputs}}), labels); the second "
      f"part of the inputs is {found}."
    )
  return own, outputs[name]


def _in_data(teachers: Mapping[str | None, Teacher]) -> Teacher | None:
  """A teacher whose outputs are part of the data, or None."""
  return next((teacher for teacher in teachers.values() if hasattr(teacher, "student_inputs")), None)
