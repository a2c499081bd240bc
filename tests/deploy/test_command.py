"""`python -m tfkd.deploy` describes a file and classifies pictures."""

import json
import re
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from PIL import Image

from tests.experiments.scripts import ENVIRONMENT
from tfkd import data, deploy
from tfkd.preprocessing import Preprocessing

LABELS = [f"kind{number}" for number in range(10)]


def _network():
  layers = keras.layers
  stack = [layers.Conv2D(4, 3, strides=4, activation="relu"), layers.Flatten(), layers.Dense(10)]
  return keras.Sequential([keras.Input((32, 32, 3)), *stack])


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
  """A directory with a TFLite file and two pictures."""
  path = tmp_path_factory.mktemp("command")
  metadata = {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.6, 0.7], "accuracy": 0.97}
  deploy.to_tflite(_network(), str(path / "student.tflite"), labels=LABELS, metadata=metadata)
  rng = np.random.default_rng(0)
  for name in ("a.png", "b c.png"):
    Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(path / name)
  return path


def test_prints_the_metadata_and_the_probabilities_of_pictures(directory):
  command = [sys.executable, "-m", "tfkd.deploy", "student.tflite", "--images", "a.png", "b c.png", "--top=10"]
  result = subprocess.run(command, cwd=directory, env=ENVIRONMENT, capture_output=True, text=True, timeout=120)
  assert result.returncode == 0, result.stderr
  assert "images of 32 x 32" in result.stdout and "  accuracy: 0.97" in result.stdout
  for name in ("a.png", "b c.png"):
    pixels = np.asarray(Image.open(directory / name), np.float32)[None] / 255
    images = (pixels - np.float32([0.1, 0.2, 0.3])) / np.float32([0.5, 0.6, 0.7])
    logits, _ = deploy.logits(str(directory / "student.tflite"), tf.data.Dataset.from_tensors((images, np.zeros(1))))
    expected = np.exp(logits[0]) / np.exp(logits[0]).sum()
    (line,) = [line for line in result.stdout.splitlines() if line.startswith(f"{name}: ")]
    found = {label: float(share) / 100 for label, share in re.findall(r"(kind\d) ([\d.]+) %", line)}
    np.testing.assert_allclose([found[label] for label in LABELS], expected, atol=6e-4)
    assert list(found.values()) == sorted(found.values(), reverse=True)


SCALING = {"mean": (0.485, 0.456, 0.406), "std": np.float32([0.229, 0.224, 0.225])}
SERVER = textwrap.dedent("""
  import contextlib, io, json, sys
  from absl import app, flags
  from tfkd.deploy import __main__ as command
  for line in sys.stdin:
    flags.FLAGS.unparse_flags()
    for name in ("images", "mean", "std", "top"):
      flags.FLAGS[name].value = flags.FLAGS[name].default
    printed, error = io.StringIO(), ""
    try:
      with contextlib.redirect_stdout(printed):
        command.main(flags.FLAGS(["deploy", *json.loads(line)]))
    except (SystemExit, app.UsageError) as end:
      error = str(end)
    print("RESULT", json.dumps([printed.getvalue(), error]), flush=True)
""")


@pytest.fixture(scope="module")
def run(directory):
  """Function that calls the command in one process for all tests: from arguments to its output and its error."""
  command = [sys.executable, "-c", SERVER]
  with subprocess.Popen(
    command, cwd=directory, env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
  ) as process:

    def call(arguments):
      process.stdin.write(json.dumps(list(arguments)) + "\n")
      process.stdin.flush()
      lines = iter(process.stdout.readline, "")
      return json.loads(next(line for line in lines if line.startswith("RESULT "))[7:])

    yield call
    process.stdin.close()


def _shares(text, picture="a.png"):
  (line,) = [line for line in text.splitlines() if line.startswith(f"{picture}: ")]
  return {int(number): float(share) for number, share in re.findall(r"class (\d) ([\d.]+) %", line)}


@pytest.mark.parametrize(
  "arguments, words",
  [
    ((), "expected a TFLite file"),
    (("none.tflite",), "no TFLite file at none.tflite"),
    (("a.png",), "a.png is not a TFLite file"),
    (("student.tflite", "--images", "none.png"), "none.png is not a readable image"),
  ],
)
def test_missing_and_unsuitable_files_end_the_command_with_one_line(run, arguments, words):
  _, error = run(arguments)
  assert words in error


def test_pictures_are_scaled_by_the_metadata_or_the_flags_and_never_by_guess(run, directory):
  model = _network()
  pixels = np.stack([np.asarray(Image.open(directory / name)) for name in ("a.png", "b c.png")])
  scaled = data.batches(
    pixels, np.zeros(2, np.int64), 2, scale_pixels=True, transforms=[data.Normalize(Preprocessing(**SCALING))]
  )
  writers = {
    "float": {"metadata": SCALING}, "int8": {"metadata": SCALING, "representative_data": scaled},
    "int8 with float ends": {"metadata": SCALING, "representative_data": scaled, "io_dtype": "float32"}, "silent": {},
    "half": {"metadata": {"mean": 0.5}},
  }  # fmt: skip
  for name, options in writers.items():
    deploy.to_tflite(model, str(directory / f"{name}.tflite"), **options)
  (directory / "other.tflite").write_bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())
  flags = ("--mean=0.485,0.456,0.406", "--std=0.229,0.224,0.225")
  calls = {
    "float": (), "int8": (), "int8 with float ends": (), "silent": flags, "half": flags, "other": flags,
  }  # fmt: skip
  calls = [[f"{name}.tflite", "--images=a.png", "b c.png", "--top=10", *flags] for name, flags in calls.items()]
  refused = {
    (
      "silent.tflite",
      "a.png",
    ): "silent.tflite has no input scaling in its metadata: pass --mean and --std of (pixel / 255",
    ("other.tflite", "a.png"): "other.tflite has no input scaling in its metadata",
    ("half.tflite", "a.png"): "half.tflite: mean and std belong together; got mean alone",
    ("silent.tflite", "a.png", "--mean=0"): "--mean and --std: mean and std belong together; got mean alone",
    ("silent.tflite", "a.png", "--mean=0", "--std=0"): "finite numbers, or one for each of 3 channels, and std > 0",
    ("silent.tflite", "a.png", "--mean=0,1", "--std=1"): "finite numbers, or one for each of 3 channels, and std > 0",
    ("silent.tflite", "a.png", "--mean=a", "--std=1"): "--mean and --std: could not convert string to float: 'a'",
    ("float.tflite", "a.png", "--mean=0", "--std=1"): "float.tflite has mean [0.48",
  }
  described = [["silent.tflite"], ["int8.tflite"]]
  results = [run(arguments) for arguments in (*calls, *refused, *described)]
  for (text, error), call in zip(results, calls, strict=False):
    if call[0] == "half.tflite":
      assert "got mean alone" in error  # It contradicts itself.
      continue
    assert not error and "input scaling: (pixel / 255 - [0.485" in text, (call, error)
    logits, _ = deploy.logits(str(directory / call[0]), scaled)
    expected = 100 * np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    for name, row in zip(("a.png", "b c.png"), expected, strict=True):
      shares = _shares(text, name)
      np.testing.assert_allclose([shares[number] for number in range(10)], row, atol=0.0501)
    choices = np.array([max(_shares(text, name), key=_shares(text, name).get) for name in ("a.png", "b c.png")])
    measured = deploy.evaluate(str(directory / call[0]), data.batches(
      pixels, choices, 2, scale_pixels=True, transforms=[data.Normalize(Preprocessing(**SCALING))]
    ))  # fmt: skip
    assert measured["accuracy"] == 1 and f"{measured['bytes']:,} bytes" in text
  for (_, error), words in zip(results[len(calls) :], refused.values(), strict=False):
    assert words in error, (words, error)
  (silent, _), (integer, _) = results[-2:]
  assert "input scaling: not known" in silent and "float32 in, float32 out" in silent
  assert "int8 in, int8 out" in integer


def test_files_that_do_not_take_pictures_are_described_and_refused(run, directory):
  layers = keras.layers

  def written(name, shape, *parts, labels=None):
    model = keras.Sequential([keras.Input(shape), *parts])
    path = str(directory / f"{name}.tflite")
    deploy.to_tflite(model, path, metadata={"mean": 0.0, "std": 1.0})
    if labels:
      deploy.write_metadata(path, labels=labels)
    return model

  written("vector", [6], layers.Dense(3))
  written("grey", [8, 8, 1], layers.Flatten(), layers.Dense(3))
  written("one", [8, 8, 3], layers.Flatten(), layers.Dense(1))
  written("map", [8, 8, 3], layers.Conv2D(4, 3))
  written("few", [8, 8, 3], layers.Flatten(), layers.Dense(3), labels=["a", "b"])
  model = written("softmax", [8, 8, 3], layers.Flatten(), layers.Dense(3, activation="softmax"))
  two = keras.Model(inputs := [keras.Input([4]), keras.Input([4])], layers.Dense(2)(layers.Add()(inputs)))
  (directory / "two.tflite").write_bytes(tf.lite.TFLiteConverter.from_keras_model(two).convert())
  words = {
    "vector": "vector.tflite takes inputs of shape [1, 6], which are not images",
    "grey": "grey.tflite takes images of 1 channels; pictures have 3",
    "one": "one.tflite has outputs of shape [1, 1]; expected [1, classes]",
    "map": "map.tflite has outputs of shape [1, 6, 6, 4]; expected [1, classes]",
    "few": "few.tflite has 2 labels and 3 outputs",
    "two": "two.tflite has 2 inputs and 1 outputs; expected one of each",
  }
  refused = [run([f"{name}.tflite", "a.png"]) for name in words]
  text, error = run(["softmax.tflite", "a.png"])
  alone, _ = run(["vector.tflite"])
  for (_, found), expected in zip(refused, words.values(), strict=True):
    assert expected in found
  assert "inputs of shape [6]" in alone
  small = np.asarray(Image.open(directory / "a.png").resize((8, 8), Image.Resampling.BILINEAR), np.float32) / 255
  shares = _shares(text)
  assert not error
  np.testing.assert_allclose([shares[n] for n in range(3)], 100 * model(small[None])[0].numpy(), atol=0.0501)
