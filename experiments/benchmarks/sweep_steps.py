"""Times training steps of a sweep's students in turns."""

import functools
from collections.abc import Hashable, Mapping

from tqdm import tqdm

from tfkd.ops.timing import interleaved
from tfkd.sweeps import StudentSpec, Sweep


def step_seconds(
  sweep: Sweep, students: Mapping[Hashable, StudentSpec], rounds: int = 25, steps: int = 4
) -> dict[Hashable, list[float]]:
  """Times training steps of several students in turns, each with the teacher run online.

  Args:
    sweep: with a trained teacher.
    students: from any key to a student.
    rounds: number of turns of each student.
    steps: number of steps per turn.

  Returns:
    dict from key to seconds per step, one value per round.
  """
  batches = sweep.examples.train_batches(0, 0)
  turns = {}
  for key, student in tqdm(students.items(), desc="tracing", unit="student", dynamic_ncols=True):
    distiller = sweep.students.distiller(student, sweep.teacher.model)
    turns[key] = functools.partial(distiller.make_train_function(), iter(batches))
  return {key: times.wall for key, times in interleaved(turns, rounds, steps).items()}
