"""Skeleton of every script: flags, sweep, students, report."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from absl import app, flags, logging

from experiments import run_flags
from tfkd.sweeps import ArrayData, Results, StudentSpec, Sweep, SweepConfig


class Experiment(NamedTuple):
  """One script: its sizes, its students, and its report."""

  name: str
  """The default work directory is `runs/<name>/<dataset>`, or `runs/<name>` for data of the script."""
  presets: Mapping[str, Mapping[str, Any]]
  """See `run_flags.start`."""
  students: Callable[[Sweep], Sequence[StudentSpec]]
  """Lists the students to train, from the flags. It may read the number of steps from the sweep."""
  write_report: Callable[[Sweep, Any], str]
  """Writes the report from the sweep and from the return value of `measure`; returns the text to print."""
  check: Callable[[], None] = lambda: None
  """Checks values of flags before any data are read; raises `ValueError`."""
  measure: Callable[[Sweep], Any] = lambda sweep: None
  """Takes further measurements of the trained students, in every process of a distributed run."""
  data: Callable[[], ArrayData] | None = None
  """Makes the data set of the script, from the flags; None for the one that --dataset names."""
  configure: Callable[[SweepConfig], SweepConfig] = lambda config: config
  """Completes the configuration of the flags."""


def main(target: Experiment | Callable[[Sequence[str]], None]) -> None:
  """Runs a script: adopts the flags of all imported experiments' modules for `--help`, and starts absl.

  Args:
    target: an `Experiment`, or a function of the arguments that absl does not parse.
  """
  for module, defined in flags.FLAGS.flags_by_module_dict().items():
    if module.startswith("experiments."):
      for flag in defined:
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)
  app.run((lambda argv: run(argv, target)) if isinstance(target, Experiment) else target)


def run(argv: Sequence[str], experiment: Experiment) -> None:
  """Trains the teacher and the students that the work directory lacks, then writes and prints the report.

  Args:
    argv: command line as absl passes it; stray arguments are an error.
    experiment: the script.
  """
  run_flags.start(argv, experiment.presets)
  with run_flags.errors_without_traceback():
    experiment.check()
    sweep = open_sweep(experiment)
    sweep.run(experiment.students(sweep))
    measured = experiment.measure(sweep)
  if sweep.writes:
    print(experiment.write_report(sweep, measured))  # noqa: T201  (the script's output)


def open_sweep(experiment: Experiment) -> Sweep:
  """Opens the sweep in the work directory of the flags."""
  config, data = experiment.configure(run_flags.training()), None
  if experiment.data is not None:
    data, config = experiment.data(), config._replace(data_dir=None)  # The data count by their contents.
  return Sweep(workdir(experiment), config, data, overwrite=flags.FLAGS.overwrite)


def workdir(experiment: Experiment) -> str:
  """Returns the work directory of the flags, or the experiment's default."""
  return flags.FLAGS.workdir or os.path.join("runs", experiment.name, flags.FLAGS.dataset or "")


def measured_files(
  sweep: Sweep, keys: Sequence[Mapping[str, Any]], measure: Callable[[Mapping[str, Any]], Mapping[str, Any]]
) -> list[dict[str, Any]]:
  """Returns the rows of `files.jsonl`, after measuring the files that an earlier run did not.

  Args:
    sweep: sweep of the script.
    keys: fields that tell each file from the others, in the order of measuring.
    measure: function of a key that measures the file and returns the other fields.
  """
  if not sweep.writes:
    return []
  results = Results(sweep.path("files.jsonl"))
  for key in keys:
    if not results.find(**key):
      row = {**key, **measure(key)}
      logging.info("file: %s", row)
      results.add(row)
  return [row for key in keys for row in results.find(**key)]
