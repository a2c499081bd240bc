"""A whole run of the comparison of methods, and its flags."""

import json

import pytest

from tests.experiments.scripts import run, run_briefly
from tfkd.data import house_numbers

TINY = (
  "--data_dir=data", "--epochs=1", "--teacher_epochs=1", "--batch_size=32", "--student=svhn_cnnx0.25", "--workdir=out",
  "--rounds=2",
)  # fmt: skip


@pytest.fixture
def folder(tmp_path):
  house_numbers.write(tmp_path / "data", sizes={"train": 64, "test": 32})
  return tmp_path


def _run(folder, *flags):
  return run("methods", folder, *TINY, *flags)


@pytest.mark.end_to_end
def test_methods_write_rows_report_picture_and_costs_and_resume(folder):
  result = _run(folder, "--method=hint", "--method=sim_kd", "--seeds=0,1")
  assert result.returncode == 0, result.stderr
  rows = [json.loads(line) for line in (folder / "out" / "results.jsonl").read_text().splitlines()]
  assert [row["method"] for row in rows[1:]] == 2 * ["labels", "hint", "sim_kd"]
  assert (rows[1]["scheme"], rows[1]["experiment"]) == ("float", "methods")
  # SimKD's student contains the teacher's classifier.
  assert rows[3]["parameters"] > rows[2]["parameters"] == rows[1]["parameters"]
  report = (folder / "out" / "report.md").read_text()
  assert report in result.stdout
  for words in ("| `hint` |", "| `sim_kd` |", "0.00 ± 0.00", "±", "cost of a step"):
    assert words in report
  assert (folder / "out" / "accuracy_by_method.png").read_bytes().startswith(b"\x89PNG")
  seconds = json.loads((folder / "out" / "costs" / "float.json").read_text())
  assert seconds.keys() == {"labels", "hint", "sim_kd"} and min(map(min, seconds.values())) > 0

  again = _run(folder, "--method=soft_targets", "--seeds=0")
  assert again.returncode == 0, again.stderr
  lines = (folder / "out" / "results.jsonl").read_text().splitlines()
  assert [json.loads(line)["method"] for line in lines[len(rows) :]] == ["soft_targets"]
  assert "| `soft_targets` |" in again.stdout and "| `hint` |" in again.stdout


def test_an_unknown_method_is_refused_with_the_known_ones(folder):
  result = run_briefly("methods", folder, *TINY, "--method=hnit")
  assert result.returncode == 1 and "hint" in result.stderr + result.stdout and "Traceback" not in result.stderr
