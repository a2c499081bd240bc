"""Distillation from a vision transformer: a whole run, and its flags."""

import json

import pytest
from safetensors.numpy import save_file

from tests.experiments.scripts import run, run_briefly, write_photographs
from tests.models.test_vit import _hugging_face
from tfkd.data.cifar10 import CLASSES


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  root = tmp_path_factory.mktemp("vit")
  write_photographs(root / "data", CLASSES, train=4, test=2)
  # Stands for weights pretrained on a thousand classes at 224 pixels: seven classes at 64 pixels.
  save_file(_hugging_face(patches=16, classes=7), str(root / "vit.safetensors"))
  return root


TINY = (
  "--data_dir=data", "--teacher=vit_tiny16@32", "--student=resnet8", "--limit_train=40", "--epochs=1",
  "--teacher_epochs=4", "--batch_size=20", "--seeds=0,1", "--mixed_precision=none", "--workdir=out",
)  # fmt: skip


@pytest.mark.end_to_end
def test_a_run_from_files_of_weights_to_the_report(folder):
  given = (*TINY, "--teacher_checkpoint=vit.safetensors", "--pretraining_data=data", "--pretraining_epochs=1")
  result = run("cifar10.vit_teacher", folder, *given)
  assert result.returncode == 0, result.stderr
  teacher, *rows = (json.loads(line) for line in (folder / "out" / "results.jsonl").read_text().splitlines())
  assert teacher["config"]["teacher_head_only"] and len(teacher["history"]["accuracy"]) == 4
  assert teacher["history"]["accuracy"][-1] > teacher["history"]["accuracy"][0]
  assert [(row["method"], row["seed"]) for row in rows] == [
    (method, seed) for seed in (0, 1) for method in ("labels", "response", "labels, pretrained", "response, pretrained")
  ]
  report = (folder / "out" / "report.md").read_text()
  assert report in result.stdout and "its last layer alone" in report
  assert "The student from scratch, distilled ends" in report and "The pretrained student, distilled ends" in report
  again = run("cifar10.vit_teacher", folder, *given)
  assert again.returncode == 0 and "8 of 8 students are trained already" in again.stderr


@pytest.mark.parametrize(
  "given, words",
  [
    ([], "trains the last layer of a --teacher_checkpoint, or of a function"),
    (["--pretraining_data=data", "--student_checkpoint=vit.safetensors"], "give one"),
    (["--teacher_checkpoint=vit.safetensors", "--pretraining_data=nowhere"], "nowhere"),
    (["--teacher_checkpoint=nowhere.pth"], "nowhere.pth"),
    (["--teacher_checkpoint=vit.safetensors", "--teacher=vit_small16@32"], "does not fit vit_small16"),
    (["--teacher_checkpoint=vit.safetensors", "--teacher=vit_tiny16@30"], "do not divide"),
    (["--teacher_checkpoint=vit.safetensors", "--noteacher_head_only"], "head.weight gives"),
  ],
)
def test_invalid_flags_are_named_without_a_traceback(folder, given, words):
  result = run_briefly("cifar10.vit_teacher", folder, *TINY, "--workdir=wrong", "--overwrite", *given)
  assert result.returncode == 1
  assert words in result.stderr + result.stdout and "Traceback" not in result.stderr
