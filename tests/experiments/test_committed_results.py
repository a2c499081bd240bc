"""Committed results can be read, and the published tables follow from them."""

import importlib
import pathlib
import re

import pytest

from experiments.compression.report import write_report as write_compression_report
from experiments.food11.report import write_report as write_food11_report
from experiments.methods.report import write_report as write_methods_report
from experiments.mlperf_tiny.report import write_report as write_mlperf_tiny_report
from experiments.mlperf_tiny.variants import variants
from experiments.svhn.report import write_report as write_svhn_report
from experiments.tasks.report import write_report as write_tasks_report
from experiments.transfer.report import write_report as write_transfer_report
from tfkd.sweeps import Results

EXPERIMENTS = pathlib.Path(__file__).parents[2] / "experiments"
FILES = sorted(EXPERIMENTS.glob("*/results/*.jsonl"))


def _read(directory, name):
  """Returns the rows of a file of results."""
  return Results(EXPERIMENTS / directory / "results" / f"{name}.jsonl").rows()


def _by_method(rows):
  found = {}
  for row in rows:
    if row["role"] == "student":
      found.setdefault(row["method"], []).append(row)
  return found


def _teacher(rows):
  (teacher,) = [row for row in rows if row["role"] == "teacher"]
  return teacher


def _svhn(workdir, name):
  return write_svhn_report(workdir, _read("svhn", name), "w2a1")


def _food11(workdir, name):
  rows = _read("food11", name)
  return write_food11_report(workdir, _teacher(rows), _by_method(rows))


def _compression(workdir, name):
  teacher = _teacher(_read("compression", f"{name}_training"))
  return write_compression_report(workdir, teacher, _read("compression", name), teacher["config"]["student"])


def _tasks(workdir, name):
  task = importlib.import_module(f"experiments.tasks.{name}").TASK
  return write_tasks_report(task, workdir, _read("tasks", name), _read("tasks", f"{name}_files"), range(3))


def _transfer(workdir, name):
  return write_transfer_report(workdir, _teacher(_read("transfer", f"{name}_training")), _read("transfer", name))


def _mlperf_tiny(workdir, name):
  names = variants(["w8a8", "w4a8", "w4a4-lsq", "w2a2-lsq"], [])
  teacher = _teacher(_read("mlperf_tiny", f"{name}_training"))
  return write_mlperf_tiny_report(workdir, teacher, _read("mlperf_tiny", name), names)


def _methods(workdir, name):
  # The rows call the student network "width 8", its earlier name.
  rows = [row | {"config": row["config"] | {"student": "svhn_cnnx0.5"}} for row in _read("methods", name)]
  methods = _by_method(rows)
  return write_methods_report(workdir, _teacher(rows), methods, {method: [1.0] for method in methods})


REPORTS = [
  ("svhn", _svhn, "house_numbers"),
  ("svhn", _svhn, "cifar10"),
  ("food11", _food11, "cifar10"),
  ("compression", _compression, "house_numbers"),
  ("transfer", _transfer, "traffic_signs"),
  ("mlperf_tiny", _mlperf_tiny, "cifar10"),
  ("methods", _methods, "house_numbers"),
  ("methods", _methods, "cifar10"),
  *(("tasks", _tasks, name) for name in ("spoken_digits", "characters", "digit_masks", "attributes", "table")),
]


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parts[-3]}-{path.stem}")
def test_every_committed_row_is_undamaged(path):
  rows = Results(path).rows()
  assert len(rows) == len(path.read_text().splitlines()) > 1
  names = ("accuracy", "binary_accuracy", "class_accuracy")
  measured = [row for row in rows if "error" not in row]
  assert all(0 < next(row[name] for name in names if name in row) <= 1 for row in measured)


@pytest.mark.parametrize("directory, write, name", REPORTS, ids=[f"{d}-{name}" for d, _, name in REPORTS])
def test_published_accuracies_are_those_of_the_committed_rows(directory, write, name, tmp_path):
  report = write(str(tmp_path), name)
  published = (EXPERIMENTS / directory / "README.md").read_text()
  # The published table of methods has no column of agreement.
  before = r"^\| `\w+` \| " if directory == "methods" else ""
  found = set(re.findall(rf"{before}(\d\d\.\d\d ± \d+\.\d\d)", report, re.MULTILINE))
  assert len(found) >= 3
  assert found <= set(re.findall(r"\d\d\.\d\d ± \d+\.\d\d", published))
