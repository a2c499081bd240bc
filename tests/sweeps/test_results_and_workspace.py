"""Results are written atomically, and a work directory belongs to one configuration."""

import json
import os

import pytest
import tf_keras as keras

from tfkd.sweeps import Results, Workspace
from tfkd.training import _fit as fit
from tfkd.training import checkpoints


def test_rows_are_read_in_order_and_found_by_value(tmp_path):
  results = Results(str(tmp_path / "results.jsonl"))
  assert results.rows() == []
  rows = [{"experiment": "q1", "seed": s, "temperature": t} for s in (0, 1) for t in (None, 5.0)]
  for row in rows:
    results.add(row)
  assert Results(str(tmp_path / "results.jsonl")).rows() == rows
  assert results.find(seed=1, temperature=None) == [rows[2]]
  assert results.find(experiment="q2") == []


@pytest.mark.parametrize(
  "damage",
  [
    lambda line: line[:20],  # Truncated.
    lambda line: line.replace(b"0.75", b"0.95"),  # Still JSON.
    lambda line: line.replace(b"acc", b"\xffcc"),
    lambda line: b"[1]",
    lambda line: b"\x00" * 30,
  ],
)
def test_damaged_line_is_reported_and_skipped(tmp_path, caplog, damage):
  path = tmp_path / "results.jsonl"
  rows = [{"seed": s, "accuracy": 0.75} for s in range(3)]
  for row in rows:
    Results(str(path)).add(row)
  lines = path.read_bytes().splitlines()
  lines[1] = damage(lines[1])
  path.write_bytes(b"\n".join(lines) + b"\n")
  results = Results(str(path))
  assert results.rows() == [rows[0], rows[2]] == results.rows()
  assert caplog.text.count("results.jsonl, line 2 is damaged") == 1
  results.add(rows[1])
  assert results.rows() == [rows[0], rows[2], rows[1]]
  assert (tmp_path / "results.jsonl.damaged").read_bytes().splitlines() == lines


@pytest.mark.parametrize("line", ['{"seed": 0}', "0", "[" * 100_000])
def test_rows_without_digest_count_as_damaged(tmp_path, line):
  (tmp_path / "results.jsonl").write_text(line + "\n")
  assert Results(str(tmp_path / "results.jsonl")).rows() == []


@pytest.mark.parametrize("content", ["{", "0", "null", "[" * 100_000])
def test_damaged_configuration_raises(tmp_path, content):
  (tmp_path / "config.json").write_text(content)
  with pytest.raises(ValueError, match=r"config.json is damaged .*use another workdir, or overwrite=True"):
    Workspace(str(tmp_path)).claim({"epochs": 1})


def test_failed_write_leaves_the_file_unchanged(tmp_path):
  path = tmp_path / "results.jsonl"
  results = Results(str(path))
  results.add({"seed": 0})
  before = path.read_text()
  with pytest.raises(TypeError):
    results.add({"seed": object()})
  assert path.read_text() == before and os.listdir(tmp_path) == ["results.jsonl"]


def test_workdir_with_another_configuration_raises(tmp_path):
  configuration = {"dataset": "svhn", "epochs": 3, "limit_train": None}
  Workspace(tmp_path).claim(configuration)
  (tmp_path / "results.jsonl").write_text("{}\n")
  Workspace(tmp_path).claim(configuration)
  with pytest.raises(ValueError, match="dataset: svhn there, cifar10 now; epochs: 3 there, 4 now.*overwrite=True"):
    Workspace(tmp_path).claim(configuration | {"dataset": "cifar10", "epochs": 4})
  assert (tmp_path / "results.jsonl").exists()


def test_missing_field_of_an_older_workdir_has_its_default(tmp_path):
  path = str(tmp_path / "w")
  Workspace(path).claim({"a": 1})
  Workspace(path).claim({"a": 1, "b": False}, defaults={"a": 0, "b": False})
  Workspace(path).claim({"a": 1, "b": False})
  with pytest.raises(ValueError, match="b: False there, True now"):
    Workspace(path).claim({"a": 1, "b": True}, defaults={"b": False})


def test_overwrite_removes_only_results(tmp_path):
  Workspace(tmp_path).claim({"epochs": 3})
  (tmp_path / "students").mkdir()
  for name in ("results.jsonl", "students/a.keras", "thesis.tex"):
    (tmp_path / name).write_text("x")
  Workspace(tmp_path).claim({"epochs": 4}, overwrite=True)
  assert sorted(name for name in os.listdir(tmp_path) if name[0] != ".") == ["config.json", "thesis.tex"]
  assert json.loads((tmp_path / "config.json").read_text()) == {"epochs": 4}


def test_only_the_chief_keeps_checkpoints_and_the_best_model(tmp_path, monkeypatch):
  model = keras.Sequential([keras.Input([3]), keras.layers.Dense(2)])
  model.compile("adam", "mse")
  for module in (checkpoints, fit):
    monkeypatch.setattr(module, "is_chief", lambda strategy: False)
  checkpoints.Checkpoints(model, str(tmp_path / "c"), epochs=2, steps=10).save()
  fit.KeepBest(model, str(tmp_path / "best.keras"), {}).on_train_begin()
  assert not os.listdir(tmp_path)
