"""`python -m tfkd.deploy`, as its user runs it."""

import re
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.experiments.scripts import ENVIRONMENT
from tfkd import deploy
from tfkd.models import svhn_cnn

LABELS = [f"kind{number}" for number in range(10)]


@pytest.fixture
def folder(tmp_path):
  metadata = {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.6, 0.7], "accuracy": 0.97}
  deploy.to_tflite(svhn_cnn(width=2), str(tmp_path / "student.tflite"), labels=LABELS, metadata=metadata)
  rng = np.random.default_rng(0)
  for name in ("a.png", "b c.png"):
    Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(tmp_path / name)
  return tmp_path


def _run(folder, *arguments):
  command = [sys.executable, "-m", "tfkd.deploy", *arguments]
  return subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=120)


def test_prints_what_the_file_says_and_the_probabilities_of_pictures(folder):
  result = _run(folder, "student.tflite", "--images", "a.png", "b c.png", "--top=10")
  assert result.returncode == 0, result.stderr
  assert "images of 32 x 32" in result.stdout and "  accuracy: 0.97" in result.stdout
  for name in ("a.png", "b c.png"):
    pixels = np.asarray(Image.open(folder / name), np.float32)[None] / 255
    images = (pixels - np.float32([0.1, 0.2, 0.3])) / np.float32([0.5, 0.6, 0.7])
    logits, _ = deploy.logits(str(folder / "student.tflite"), tf.data.Dataset.from_tensors((images, np.zeros(1))))
    expected = np.exp(logits[0]) / np.exp(logits[0]).sum()
    (line,) = [line for line in result.stdout.splitlines() if line.startswith(f"{name}: ")]
    found = {label: float(share) / 100 for label, share in re.findall(r"(kind\d) ([\d.]+) %", line)}
    np.testing.assert_allclose([found[label] for label in LABELS], expected, atol=6e-4)
    assert list(found.values()) == sorted(found.values(), reverse=True)


@pytest.mark.parametrize(
  "arguments, words",
  [
    ((), "expected a TFLite file"),
    (("none.tflite",), "no TFLite file at none.tflite"),
    (("a.png",), "a.png is not a TFLite file"),
    (("student.tflite", "--images", "none.png"), "none.png is not an image that can be read"),
  ],
)
def test_what_is_missing_is_said_without_a_traceback(folder, arguments, words):
  result = _run(folder, *arguments)
  assert result.returncode == 1 and words in result.stdout + result.stderr and "Traceback" not in result.stderr
