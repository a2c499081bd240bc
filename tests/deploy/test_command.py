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
from scipy.io import wavfile

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
    for name in ("images", "sounds", "sample_rate", "threshold", "output", "mean", "std", "top"):
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
  assert all(
    re.search(r"^  zeros: [\d,]+ of [\d,]+ weights \(\d+%\)$", text, re.MULTILINE) for text in (silent, integer)
  )


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


def test_the_task_decides_what_is_shown(run, directory):
  layers = keras.layers
  pixels = np.asarray(Image.open(directory / "a.png"))
  images = pixels[None].astype(np.float32) / 255

  def written(name, task, *parts, dtype="float32", **options):
    model = keras.Sequential([keras.Input([32, 32, 3], dtype=dtype), *parts])
    scaling = {"mean": 0.0, "std": 1.0} if dtype == "float32" else {}
    deploy.to_tflite(model, str(directory / f"{name}.tflite"), task=task, metadata=scaling, **options)
    return model

  many = written("many", "multi-label", layers.Flatten(), layers.Dense(4), labels=list("abcd"))
  several = written("several", "multi-label", layers.Flatten(), layers.Dense(4, "sigmoid"), labels=list("abcd"))
  size = written("size", "regression", layers.Flatten(), layers.Dense(2), labels=["width", "height"])
  maps = written("maps", "per-element classes", layers.Conv2D(3, 1, strides=2), labels=["sky", "sea", "land"])
  raw = [layers.Rescaling(1 / 255), layers.Flatten(), layers.Dense(3)]
  raw = written("raw", "classes", *raw, dtype="uint8", representative_data=pixels[None])
  for name, model in (("many", many), ("several", several)):
    scores = model(images)[0].numpy().astype(np.float64)
    probabilities = scores if name == "several" else 1 / (1 + np.exp(-scores))
    text, error = run([f"{name}.tflite", "a.png", "--threshold=0.4"])
    shown = dict(re.findall(r"([abcd]) ([\d.]+) %", text.splitlines()[-1].partition(": ")[2]))
    assert not error and set(shown) == {label for label, p in zip("abcd", probabilities, strict=True) if p > 0.4}
    for label, share in shown.items():
      np.testing.assert_allclose(float(share), 100 * probabilities["abcd".index(label)], atol=0.06)
  assert "a.png: no label over 100 %" in run(["many.tflite", "a.png", "--threshold=1"])[0]
  text, _ = run(["size.tflite", "a.png"])
  found = re.search(r"a.png: width (\S+), height (\S+)", text).groups()
  np.testing.assert_allclose(np.float64(found), size(images)[0], rtol=1e-4, atol=1e-5)
  text, error = run(["maps.tflite", "a.png", "--output=masks"])
  expected = maps(images)[0].numpy().argmax(-1)
  mask = Image.open(directory / "masks" / "a.mask.png")
  np.testing.assert_array_equal(np.asarray(mask), expected)
  share = 100 * (expected == expected.flat[0]).mean()
  assert not error and mask.mode == "P" and f"{['sky', 'sea', 'land'][expected.flat[0]]} {share:.1f} %" in text
  assert "several pictures would be written to" in run(["maps.tflite", "a.png", "a.png"])[1]
  text, error = run(["raw.tflite", "a.png"])
  expected = keras.activations.softmax(raw(pixels[None]))[0].numpy()
  shares = _shares(text)
  assert not error
  np.testing.assert_allclose([shares[number] for number in range(3)], 100 * expected, atol=1.5)
  assert "takes uint8 pixels as they are" in run(["raw.tflite", "a.png", "--mean=0", "--std=1"])[1]
  with pytest.raises(ValueError, match="task 'class' is not known: did you mean 'classes'"):
    deploy.write_metadata(str(directory / "raw.tflite"), task="class")


def test_waveforms_are_read_from_wav_files(run, directory):
  layers = keras.layers
  model = keras.Sequential([keras.Input([400]), layers.Dense(3)])
  deploy.to_tflite(model, str(directory / "speech.tflite"), metadata={"sample_rate": 8000})
  deploy.to_tflite(model, str(directory / "rateless.tflite"))
  wave = np.random.default_rng(0).integers(-(2**15), 2**15, 300, np.int16)
  sounds = {
    "int16": (wave, 2.0**15, 0), "int32": (wave.astype(np.int32) << 16, 2.0**31, 0),
    "uint8": ((wave // 256 + 128).astype(np.uint8), 128, 128), "float": ((wave / 2**15).astype(np.float32), 1, 0),
  }  # fmt: skip
  for name, (values, scale, zero) in sounds.items():
    wavfile.write(directory / f"{name}.wav", 8000, values)
    padded = np.pad((values.astype(np.float64) - zero) / scale, (0, 100)).astype(np.float32)
    text, error = run(["speech.tflite", f"{name}.wav"])
    assert not error
    shares = _shares(text, f"{name}.wav")
    expected = keras.activations.softmax(model(padded[None]))[0].numpy()
    np.testing.assert_allclose([shares[number] for number in range(3)], 100 * expected, atol=0.06)
  wavfile.write(directory / "stereo.wav", 8000, np.stack([wave, wave], 1))
  wavfile.write(directory / "fast.wav", 16000, wave)
  wavfile.write(directory / "long.wav", 8000, np.tile(wave, 2))
  words = {
    ("speech", "a.png"): "a.png is not a WAV file",
    ("speech", "stereo.wav"): "stereo.wav has 2 channels; expected one",
    ("speech", "fast.wav"): "fast.wav has 16000 samples per second; expected 8000",
    ("speech", "long.wav"): "long.wav has 600 samples; the model takes 400",
    ("speech", "none.wav"): "no WAV file at none.wav",
    ("rateless", "--sounds=int16.wav"): "rateless.tflite has no sample_rate in its metadata: pass --sample_rate",
    ("student", "--sounds=int16.wav"): "sounds need [1, samples] or [1, samples, 1]",
  }
  for (name, sound), expected in words.items():
    assert expected in run([f"{name}.tflite", sound])[1]
  assert "class " in run(["rateless.tflite", "--sounds=int16.wav", "--sample_rate=8000"])[0]
