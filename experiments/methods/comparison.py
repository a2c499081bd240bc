"""The comparison of methods: flags, presets, students, and the cost of their steps."""

import json
import os

import tf_keras as keras
from absl import flags, logging

from experiments import run_flags
from experiments._run import Experiment
from experiments.benchmarks.sweep_steps import step_seconds
from experiments.methods.report import write_report
from experiments.methods.table import BASELINE, LAST, METHODS
from tfkd import objectives
from tfkd.storage.files import write_json
from tfkd.sweeps import FLOAT, StudentSpec, Sweep

flags.DEFINE_multi_enum("method", None, METHODS, "Train only this method and the baseline; may be repeated.")
flags.DEFINE_integer("rounds", 25, "Number of rounds in which a step of each method is timed.", lower_bound=1)

_COMMON = {
  "dataset": "house_numbers",
  "scheme": FLOAT,
  "teacher": "svhn_cnn",
  "student": "svhn_cnnx0.5",
  "epochs": 4,
  "teacher_epochs": 5,
}
PRESETS = {"quick": _COMMON | {"seeds": [0]}, "full": _COMMON | {"seeds": [0, 1, 2]}}


def student(method: str, seed: int) -> StudentSpec:
  """Returns the student of a method of `METHODS`."""
  return StudentSpec(
    experiment="methods",
    method=method,
    scheme=flags.FLAGS.scheme,
    seed=seed,
    objectives=METHODS[method],
    adapt=_with_teachers_classifier if method == "sim_kd" else None,
  )


def _students(sweep: Sweep) -> list[StudentSpec]:
  methods = dict.fromkeys([BASELINE, *(flags.FLAGS.method or METHODS)])
  return [student(method, seed) for seed in run_flags.seeds() for method in methods]


def _with_teachers_classifier(teacher: keras.Model, student: keras.Model) -> keras.Model:
  return objectives.simkd_student(teacher, student, LAST, LAST)


def _step_seconds(sweep: Sweep) -> dict[str, list[float]]:
  """Times a training step of every trained method: seconds in each round. Stored, since tracing takes minutes."""
  methods = [method for method in METHODS if sweep.rows(student(method, 0))]
  path = sweep.path("costs", f"{flags.FLAGS.scheme}.json")
  if os.path.exists(path):
    with open(path, encoding="utf-8") as file:
      seconds = json.load(file)
    if set(methods) <= set(seconds):
      return seconds
  logging.info("timing a training step of %d methods", len(methods))
  seconds = step_seconds(sweep, {method: student(method, 0) for method in methods}, flags.FLAGS.rounds)
  if sweep.writes:
    write_json(path, seconds)
  return seconds


def _write_report(sweep: Sweep, seconds: dict[str, list[float]]) -> str:
  (teacher,) = sweep.results.find(role="teacher")
  rows = {method: found for method in METHODS if (found := sweep.rows(student(method, 0)))}
  return write_report(sweep.path(), teacher, rows, seconds)


EXPERIMENT = Experiment("methods", PRESETS, _students, _write_report, measure=_step_seconds)
