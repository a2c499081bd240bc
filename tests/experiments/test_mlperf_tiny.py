"""MLPerf Tiny's image classification: published weights, a whole run, and its flags."""

import json
import os

import numpy as np
import pytest
import tensorflow as tf

from experiments.mlperf_tiny import reference
from tests.experiments.scripts import run, run_briefly, write_photographs
from tfkd import deploy, models
from tfkd.data.cifar10 import CLASSES

PUBLISHED = os.environ.get("TFKD_MLPERF_TINY", "")  # Directory of the published files.
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (12, 32, 32, 3)).astype(np.float32)


def _network(filters):
  return models.mlperf_resnet8(filters=filters, has_normalization=False, name="network")


def _outputs(path):
  outputs, _ = deploy.logits(path, tf.data.Dataset.from_tensor_slices((IMAGES, np.zeros(12))).batch(12))
  return outputs


def test_a_network_with_the_weights_of_a_file_computes_what_the_file_does(tmp_path):
  written, read = _network(4), _network(4)
  for layer in written.layers:
    layer.set_weights([RNG.normal(scale=0.1, size=w.shape).astype(np.float32) for w in layer.get_weights()])
  path = str(tmp_path / "network.tflite")
  deploy.to_tflite(written, path)
  reference.load_weights(read, path)
  np.testing.assert_allclose(read.predict(IMAGES, verbose=0), _outputs(path), rtol=1e-4, atol=1e-3)
  with pytest.raises(ValueError, match=r"has no kernel of shape \(3, 3, 3, 8\) for layer 'conv1'"):
    reference.load_weights(_network(8), path)


@pytest.mark.skipif(not os.path.isdir(PUBLISHED), reason="TFKD_MLPERF_TINY does not name the published files")
@pytest.mark.parametrize("name, filters", [("IC01 float", 16), ("IC02 float", 40)])
def test_published_weights_give_the_published_outputs(name, filters):
  path = reference.path(PUBLISHED, name)
  network = _network(filters)
  reference.load_weights(network, path)
  # The files end in a softmax.
  probabilities = tf.nn.softmax(network.predict(IMAGES, verbose=0)).numpy()
  np.testing.assert_allclose(probabilities, _outputs(path), atol=2e-5)


TINY = ("--data_dir=data", "--limit_train=40", "--epochs=1", "--batch_size=20", "--workdir=out")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  root = tmp_path_factory.mktemp("mlperf_tiny")
  write_photographs(root / "data", CLASSES, train=4, test=2)
  return root


@pytest.mark.end_to_end
def test_a_run_ends_with_measured_files(folder):
  flags = (*TINY, "--schemes=w8a8,w2a2-lsq", "--methods=DKD")
  result = run("mlperf_tiny", folder, *flags)
  assert result.returncode == 0, result.stderr
  rows = {row["variant"]: row for row in map(json.loads, (folder / "out" / "files.jsonl").read_text().splitlines())}
  schemes = ("float", "PTQ int8", "w8a8", "w2a2-lsq")
  expected = {f"{scheme}, {method}" for scheme in schemes for method in ("labels", "soft targets")}
  assert rows.keys() == expected | {"float, DKD", "w8a8, DKD", "teacher"}
  for name, row in rows.items():
    suffix = ".pack" if name.startswith("w2a2") else ".tflite"
    path = folder / "out" / "files" / f"{name.replace(', ', '-').replace(' ', '_')}-seed0{suffix}"
    assert path.stat().st_size == row["bytes"] and row["images"] == 20
    assert row["parameters"] == (482_730 if name == "teacher" else 78_666)
  assert rows["w2a2-lsq, labels"]["bytes"] < rows["w8a8, labels"]["bytes"] <= 98_496
  report = (folder / "out" / "report.md").read_text()
  assert report in result.stdout and '"w8a8, soft targets"' in report and "never saw" not in report
  again = run("mlperf_tiny", folder, *flags)
  assert again.returncode == 0 and "8 of 8 students are trained already" in again.stderr


@pytest.mark.parametrize(
  "given, words",
  [
    (["--reference_dir=data"], "has no file pretrainedResnet.tflite: expected the TFLite files of mlcommons/tiny"),
    (["--teacher=resnet8"], "--teacher=resnet8 has no effect here"),
    (["--schemes=w8a8,w9a9"], "expected schemes such as w8a8"),
    (["--schemes=float"], "expected schemes such as w8a8"),
    (["--methods=dkd"], "expected some of DKD, SRD, OFD"),
  ],
)
def test_invalid_flags_are_named_without_a_traceback(folder, given, words):
  result = run_briefly("mlperf_tiny", folder, *TINY, *given)
  assert result.returncode == 1
  assert words in result.stderr + result.stdout and "Traceback" not in result.stderr
