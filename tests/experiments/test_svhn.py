"""Whole runs of the SVHN scripts, and their flags."""

import json
import os
import re
import signal
import subprocess
import time

import pytest

from tests.experiments.scripts import ENVIRONMENT, command, run, run_briefly
from tfkd.data import house_numbers


def _run(script, folder, *flags):
  return run(f"svhn.{script}", folder, *flags)


@pytest.fixture
def folder(tmp_path):
  house_numbers.write(tmp_path / "data", sizes={"train": 64, "test": 32})
  return tmp_path


TINY = ("--data_dir=data", "--epochs=1", "--teacher_epochs=1", "--batch_size=32")


@pytest.mark.end_to_end
def test_all_writes_rows_report_picture_logs_and_files(folder):
  result = _run("all", folder, *TINY, "--temperatures=15", "--seeds=0", "--workdir=out")
  assert result.returncode == 0, result.stderr
  rows = [json.loads(line) for line in (folder / "out" / "results.jsonl").read_text().splitlines()]
  assert (
    sorted({row["experiment"] or row["role"] for row in rows}) == ["q1", "q2", "q3", "q4", "teacher"]
    and len(rows) == 1 + 2 + 3 + 2
  )
  report = (folder / "out" / "report.md").read_text()
  assert report in result.stdout
  for words in ("96.09", "| 15 |", "w8a8, without teacher", "TFLite accuracy"):
    assert words in report
  assert (folder / "out" / "accuracy_vs_temperature.png").read_bytes().startswith(b"\x89PNG")
  assert f"Wrote {os.path.join('out', 'accuracy_vs_temperature.png')}" in result.stdout
  assert list((folder / "out" / "logs").glob("q3-*/train/*tfevents*"))
  assert len(list((folder / "out" / "students").glob("*.tflite"))) == 2
  assert "Traceback" not in result.stderr and "wrote out/students/" in result.stderr


@pytest.mark.end_to_end
def test_a_killed_run_resumes(folder):
  flags = (*TINY, "--temperatures=5,15", "--workdir=out")
  process = subprocess.Popen(command("svhn.q2", *flags), cwd=folder, env=ENVIRONMENT, stderr=subprocess.DEVNULL)
  results = folder / "out" / "results.jsonl"
  while process.poll() is None and not (results.exists() and '"q2"' in results.read_text()):
    time.sleep(0.1)
  assert process.poll() is None, "the run ended before it could be killed"
  process.send_signal(signal.SIGKILL)
  process.wait()
  before = results.read_text()
  result = _run("q2", folder, *flags)
  assert result.returncode == 0, result.stderr
  assert results.read_text().startswith(before)
  rows = [json.loads(line) for line in results.read_text().splitlines()]
  assert [(row["experiment"], row["temperature"]) for row in rows] == [(None, None), ("q2", 5.0), ("q2", 15.0)]
  assert "1 of 2 students are trained already" in result.stderr


@pytest.mark.parametrize(
  "flags, words",
  [
    (["--temperatures=5,0"], "temperatures"),
    (["--temperatures=nan"], "temperatures"),
    (["--temperatures=inf"], "temperatures"),
    (["--temperatures=warm"], "expected positive finite numbers"),
    (["--seeds=-1"], "expected whole numbers >= 0"),
    (["--seeds="], "expected whole numbers >= 0"),
    (
      ["--workdir=data/train_32x32.mat", "--data_dir=data", "--batch_size=32"],
      "--workdir data/train_32x32.mat is a file; expected a directory",
    ),
    (["--scheme=int8"], "unknown scheme 'int8'"),
    (["--student=resnet9"], "unknown network 'resnet9'"),
    (["--preset=cpu"], "--preset=cpu is not one of this script's: quick, full"),
    (["--mixup=-1"], "mixup"),
    (["--data_dir=data", "--batch_size=32", "--ema=0.999"], "use at most"),
    (["--dataset=mnist"], "house_numbers"),
    (["--strategy=tpu9"], "mirrored"),
    (["--soft_weight=-1"], "soft_weight"),
    (["--learnin_rate=1"], "learning_rate"),
    (["stray"], "unknown arguments: stray"),
    (["--data_dir=nowhere", "--dataset=svhn"], "no train_32x32.mat in nowhere"),
    (["--data_dir=data", "--batch_size=65"], "--batch_size is 65, but there are only 64 training examples"),
    (["--data_dir=data", "--limit_train=65"], "limit must be between 1 and 64"),
  ],
)
def test_invalid_flags_are_named_without_a_traceback(folder, flags, words):
  result = run_briefly("svhn.q3", folder, *flags)
  assert result.returncode == 1
  assert words in result.stderr + result.stdout
  assert "Traceback" not in result.stderr
  assert sorted(os.listdir(folder)) == ["data"]


def test_help_lists_every_flag_with_its_meaning(folder):
  result = run_briefly("svhn.all", folder, "--help")
  assert result.returncode == 1  # absl's exit status of --help.
  flags = (
    "dataset data_dir workdir scheme temperatures soft_weight seeds epochs batch_size learning_rate strategy "
    "mixed_precision limit_train overwrite preset teacher student optimizer schedule warm_up weight_decay augment "
    "label_smoothing mixup ema"
  )
  for flag in re.split(" ", flags):
    assert f"--{flag}:" in result.stdout or f"--[no]{flag}:" in result.stdout
  assert "The whole SVHN homework" in result.stdout
