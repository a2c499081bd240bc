"""Rows and report of the networks of `keras.applications`, and a run that resumes."""

import json
import pathlib

import numpy as np
import pytest
import tf_keras as keras

from experiments.networks import architectures, report, rows
from experiments.networks.rows import Key
from tests.experiments.scripts import run, run_briefly

FLAGS = (
  "--networks=MobileNet", "--libraries=tf_keras", "--libraries=keras", "--modes=alone", "--schemes=w8a8", "--size=32",
  "--steps=2", "--qat_steps=1", "--limit_train=32", "--test_images=8", "--batch_size=16", "--workdir=out",
)  # fmt: skip
GOOD = {
  "is_integer": True, "bytes": 1_234, "worst_steps": 4.0000002, "mean_steps": 0.25, "control": 3.0, "agreement": 1.0,
  "quantize_seconds": 2.0, "export_seconds": 3.0,
}  # fmt: skip
FAILED = {"stage": "quantize", "error": "ValueError: layer 'a|b' cannot be quantized."}
ROWS = [
  {**Key("tf_keras", "VGG16", "alone", "w4a8")._asdict(), **GOOD, "worst_steps": 5.0},
  {**Key("tf_keras", "VGG16", "alone", "w8a8")._asdict(), **GOOD},
  {**Key("tf_keras", "MobileNet", "alone", "w8a8")._asdict(), **FAILED},
  {**Key("tf_keras", "MobileNet", "alone", "PTQ")._asdict(), **GOOD, "is_integer": False, "worst_steps": None},
]


def _write(workdir):
  for row in ROWS:
    rows.results(workdir, row["library"]).add(row)


def test_report_counts_the_networks_that_reach_the_goal_and_gives_reasons_for_the_others(tmp_path):
  _write(tmp_path)
  text = report.write_report(str(tmp_path), rows.rows(str(tmp_path)))
  assert "- alone, w8a8: 1 of 2 networks have files of integers only; 1 of these differ" in text
  assert "(not MobileNet)" in text and "(not VGG16)" in text
  lines = text.splitlines()
  assert "| VGG16 | alone | w8a8 | yes | yes | 1,234 | 4 | 0.25 | 3 | 100 | 2 | 3 |" in lines
  assert "| MobileNet | alone | w8a8 | no | – | – | – | – | – | – | – | – |" in lines
  assert "| VGG16 alone w4a8 | 5 steps | – | – | – | – | – |" in lines
  reason = "quantize: ValueError: layer 'a\\|b' cannot be quantized."
  assert f"| MobileNet alone w8a8 | {reason} | no | 1,234 | – | – | 100 |" in lines


def test_published_table_is_that_of_the_committed_rows(tmp_path):
  results = pathlib.Path(report.__file__).parent / "results"
  text = report.write_report(str(tmp_path), rows.rows(str(results)))
  assert text.startswith((results / "report.md").read_text())


def test_forgotten_rows_are_removed_with_their_post_training_quantization(tmp_path):
  _write(tmp_path)
  rows.forget(str(tmp_path), [Key("tf_keras", "MobileNet", "alone", "w8a8")])
  assert [row["network"] for row in rows.rows(str(tmp_path))] == ["VGG16", "VGG16"]


@pytest.mark.parametrize("mode", architectures.MODES)
def test_keras_3_has_the_weights_and_the_logits_of_tf_keras(mode):
  ours, theirs = (architectures.build(library, "MobileNet", mode, 32) for library in architectures.LIBRARIES)
  images = np.random.default_rng(0).uniform(-1, 1, (4, 32, 32, 3)).astype(np.float32)
  architectures.estimate_statistics(ours, images)
  architectures.copy_weights(ours, theirs)
  expected = ours(images, training=False).numpy()
  np.testing.assert_allclose(theirs(images, training=False), expected, rtol=1e-3, atol=1e-4 * np.ptp(expected))


def test_statistics_are_those_of_the_batch_and_momenta_stay():
  layer = keras.layers.BatchNormalization(momentum=0.75)
  model = keras.Sequential([keras.Input((3,)), layer])
  values = np.random.default_rng(0).normal(2, 3, (50, 3)).astype(np.float32)
  architectures.estimate_statistics(model, values)
  np.testing.assert_allclose(layer.moving_mean, values.mean(axis=0), rtol=1e-5)
  np.testing.assert_allclose(layer.moving_variance, values.var(axis=0), rtol=1e-4)
  assert layer.momentum == 0.75


def test_unknown_networks_are_refused(tmp_path):
  result = run_briefly("networks", tmp_path, "--networks=LeNet")
  assert result.returncode != 0 and "expected names of MobileNet, " in result.stderr


@pytest.mark.end_to_end
def test_networks_of_both_libraries_are_measured_once(tmp_path):
  result = run("networks", tmp_path, *FLAGS)
  assert result.returncode == 0, result.stderr
  paths = [tmp_path / "out" / f"{library}.jsonl" for library in architectures.LIBRARIES]
  before = [path.read_text() for path in paths]
  found = [json.loads(text.splitlines()[0]) for text in before]
  for row, library in zip(found, architectures.LIBRARIES, strict=True):
    assert "error" not in row, row["error"]
    assert row["is_integer"] and row["images"] == 8
    assert row["bytes"] == (tmp_path / "out" / library / "MobileNet-alone-w8a8.tflite").stat().st_size
  assert found[1]["conversion_difference"] < 1e-3
  report_text = (tmp_path / "out" / "report.md").read_text()
  assert report_text in result.stdout and "## keras\n" in report_text

  again = run("networks", tmp_path, *FLAGS)
  assert again.returncode == 0, again.stderr
  assert [path.read_text() for path in paths] == before
  other = run("networks", tmp_path, *FLAGS, "--steps=3")
  assert other.returncode == 1 and "steps" in other.stderr
