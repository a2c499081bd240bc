"""A whole run of the comparison of compressed files."""

import json

import pytest

from experiments.compression.variants import FILES
from tests.experiments.scripts import run
from tfkd import deploy
from tfkd.data import house_numbers

FLAGS = (
  "--data_dir=data", "--epochs=1", "--qat_epochs=1", "--teacher_epochs=1", "--batch_size=32", "--workdir=out",
  "--teacher=svhn_cnnx0.5", "--student=svhn_cnnx0.25", "--seeds=0",
)  # fmt: skip


@pytest.mark.end_to_end
def test_compression_writes_files_rows_report_and_picture_and_resumes(tmp_path):
  house_numbers.write(tmp_path / "data", sizes={"train": 64, "test": 32})
  result = run("compression", tmp_path, *FLAGS)
  assert result.returncode == 0, result.stderr
  lines = (tmp_path / "out" / "files.jsonl").read_text().splitlines()
  rows = {row["variant"]: row for row in map(json.loads, lines)}
  assert set(rows) == set(FILES)
  files = {name: tmp_path / "out" / "files" / f"{name.replace(' ', '_')}-seed0" for name in rows}
  for name, row in rows.items():
    suffix = ".pack" if name.startswith(("w2a1", "w2a2", "w4a4")) else ".tflite"
    assert row["bytes"] == files[name].with_suffix(suffix).stat().st_size
    assert row["images"] == 32 and row["ratio"] > 0 and row["agreement"] > 0.5
  parameters = {row["parameters"] for name, row in rows.items() if name != "float teacher"}
  assert len(parameters) == 1 and parameters.pop() < rows["float teacher"]["parameters"]
  sizes = [rows[name]["bytes"] for name in ("w2a1", "QAT int4", "QAT int8", "float student")]
  assert sizes == sorted(sizes)
  # All variants except post-training quantization have weights of their own.
  digests = {deploy.read_metadata(files[name].with_suffix(".tflite"))["weights_sha256"] for name in rows}
  assert len(digests) == len(FILES) - 1  # PTQ int8 has the weights of the float student.
  for name in rows:
    fields = deploy.read_metadata(files[name].with_suffix(".tflite"))
    assert (fields["mean"], fields["std"]) == (0.0, 1.0) and fields["labels"] == list("0123456789")
  assert deploy.read_metadata(files["QAT int4"].with_suffix(".tflite"))["scheme"] == "w4a8"
  report = (tmp_path / "out" / "report.md").read_text()
  assert report in result.stdout
  for words in (
    *(f"| {name} |" for name in rows),
    '"QAT int4" ends',
    "At worst, the accuracy of a",
  ):
    assert words in report
  assert (tmp_path / "out" / "accuracy_against_bytes.png").read_bytes().startswith(b"\x89PNG")

  again = run("compression", tmp_path, *FLAGS)
  assert again.returncode == 0, again.stderr
  assert (tmp_path / "out" / "files.jsonl").read_text().splitlines() == lines
