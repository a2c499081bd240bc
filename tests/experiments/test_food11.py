"""Losses and parameter limit of the Food-11 homework, and its five scripts on a small data set of its layout."""

import csv
import json

import numpy as np
import pytest
import tf_keras as keras
from absl import flags
from absl.testing import flagsaver
from PIL import Image

import tfkd
from experiments import run_flags
from experiments.food11 import baselines, report
from tests.experiments.scripts import run, run_briefly
from tests.losses import references
from tfkd import models, quantization
from tfkd.data.food11 import FOLDERS
from tfkd.features.taps import Reader

RNG = np.random.default_rng(0)
X = RNG.uniform(size=(6, 32, 32, 3)).astype(np.float32)
Y = np.arange(6)


def _steps(epochs):
  return 10 * epochs


@pytest.fixture
def given():
  if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()
  with flagsaver.flagsaver():
    run_flags.start(["food11"], baselines.PRESETS)
    yield flags.FLAGS


def _terms(student, step=0):
  """Returns the terms of the loss of a student after some steps, its teacher, its network and its distiller."""
  teacher, model = models.build("resnet18x0.125"), models.build(student.network or "plain_cnn")
  distiller = tfkd.Distiller(teacher, model, student.objectives, student.hard_loss_weight)
  distiller.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
  distiller.optimizer.iterations.assign(step)
  return distiller.evaluate(X, Y, verbose=0, return_dict=True), teacher, model, distiller


def _responses(teacher, student, temperature, alpha):
  """Returns alpha * T^2 * KL + (1 - alpha) * cross-entropy in float64."""
  theirs, ours = teacher.predict(X, verbose=0), student.predict(X, verbose=0)
  soft = temperature**2 * references.soft_target_kl(theirs, ours, temperature).mean()
  return alpha * soft + (1 - alpha) * references.soft_target_cross_entropy(40.0 * np.eye(10)[Y], ours, 1.0).mean()


@pytest.mark.parametrize("method, network", [("medium", None), ("strong", "depthwise_cnn")])
@pytest.mark.parametrize("temperature, alpha", [(5.0, 0.5), (2.0, 0.9)])
def test_medium_and_strong_train_on_divergence_and_labels(given, method, network, temperature, alpha):
  with flagsaver.flagsaver(temperature=temperature, alpha=alpha):
    student = baselines.student(method, 0, _steps)
  assert student.network == network
  found, teacher, model, _ = _terms(student)
  assert found["loss"] == pytest.approx(_responses(teacher, model, temperature, alpha), rel=1e-4)


def test_simple_trains_on_labels_alone(given):
  student = baselines.student("simple", 3, _steps)
  assert (student.objectives, student.hard_loss_weight, student.seed) == ((), 1.0, 3)


@pytest.mark.parametrize("progress", [0.0, 0.5, 1.0])
def test_boss_adds_relations_and_decaying_hints(given, progress):
  with flagsaver.flagsaver(hint_weight=3.0, rkd_weight=0.25, dm_weight=0.5, strong_epochs=4):
    student = baselines.student("boss", 0, _steps)
  found, teacher, model, distiller = _terms(student, step=int(40 * progress))
  tapped = ["layer2", "layer3", "embedding"]
  theirs, ours = ({name: t.numpy() for name, t in Reader(m, tapped)(X)[1].items()} for m in (teacher, model))
  connected = {o.name: o.connectors for o in distiller.objectives if getattr(o, "connectors", None)}
  hints = [
    references.hint(theirs[layer], ours[layer] @ c.kernel.numpy() + c.bias.numpy()).mean()
    for layer, c in zip(tapped, connected["hint"], strict=False)
  ]
  (linear,) = connected["distance_metric"]
  embedding = ours["embedding"] @ linear.kernel.numpy() + linear.bias.numpy()
  expected = _responses(teacher, model, 5.0, 0.5) + 3.0 * (1 - progress) * np.mean(hints)
  expected += 0.25 * references.rkd_distance(theirs["embedding"], ours["embedding"])
  expected += 0.5 * references.rkd_angle(theirs["embedding"], ours["embedding"])
  expected += 0.5 * references.distance_metric(theirs["embedding"], embedding)
  assert found["loss"] == pytest.approx(expected, rel=1e-4)


def test_boss_with_zero_weights_equals_strong(given):
  with flagsaver.flagsaver(hint_weight=0.0, rkd_weight=0.0, dm_weight=0.0):
    assert len(baselines.student("boss", 0, _steps).objectives) == 1


@pytest.mark.parametrize("preset", baselines.PRESETS)
def test_presets_are_complete_and_below_the_limit(given, preset):
  with flagsaver.flagsaver(preset=preset):
    run_flags.start(["food11"], baselines.PRESETS)
    for name in (given.student, given.strong_student):
      assert quantization.sizes(models.build(name, 11, (224, 224, 3)))["trainable_parameters"] <= 60_000
    assert None not in (given.teacher, given.epochs, given.teacher_epochs, given.strong_epochs, given.seeds)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """Writes a data set of the homework's layout, with several sizes and color modes, and one truncated file."""
  root = tmp_path_factory.mktemp("food")
  for split, count in zip(FOLDERS.values(), (45, 22, 13), strict=True):
    (root / "data" / split).mkdir(parents=True)
    for i in range(count):
      label = i % 11
      pixels = RNG.integers(0, 100, (*RNG.integers(40, 90, 2), 3), np.uint8) + np.uint8(14 * label)
      mode, suffix = (("RGB", "jpg"), ("L", "jpg"), ("CMYK", "jpg"), ("RGBA", "png"))[i % 4]
      name = f"{i:04}" if split == "evaluation" else f"{label}_{i}"
      Image.fromarray(pixels).convert(mode).save(root / "data" / split / f"{name}.{suffix}")
  cut = root / "data" / "training" / "0_0.jpg"
  cut.write_bytes(cut.read_bytes()[:-500])
  return root


TINY = (
  "--data_dir=data", "--image_size=32", "--teacher=resnet18x0.0625", "--limit_train=40", "--epochs=2",
  "--teacher_epochs=1", "--strong_epochs=3", "--batch_size=20", "--learning_rate=0.01", "--teacher_learning_rate=0.01",
  "--mixed_precision=none", "--workdir=out",
)  # fmt: skip


def _run(folder, script, *given):
  return run(f"food11.{script}", folder, *TINY, *given)


def test_a_damaged_file_is_named_and_nothing_is_trained(folder):
  result = run_briefly("food11.simple", folder, *TINY)
  assert result.returncode == 1 and "Traceback" not in result.stderr
  assert "1 of 45 images in data/training are empty, damaged or larger than 100 megapixels: 0_0.jpg" in result.stderr
  assert "on_bad_image=skip" in result.stderr and not (folder / "out").exists()


@pytest.mark.end_to_end
def test_five_scripts_from_files_to_submission(folder):
  options = ("--seeds=0,1", "--on_bad_image=skip")
  early = run_briefly("food11.submit", folder, *TINY, *options)
  assert early.returncode == 1 and "train one first" in early.stderr and "Traceback" not in early.stderr
  for number, method in enumerate(baselines.METHODS):
    result = _run(folder, method, *options)
    assert result.returncode == 0, result.stderr
    assert ("training the teacher" in result.stderr) == (number == 0)
  text = (folder / "out" / "report.md").read_text()
  assert text in result.stdout
  lines = [line.split("|") for line in text.splitlines() if line.startswith("|")]
  assert [cells[1].strip() for cells in lines[2:]] == ["teacher", *baselines.METHODS]
  assert [cells[2].strip() for cells in lines[3:]] == 2 * ["plain_cnn"] + 2 * ["depthwise_cnn"]
  assert [int(cells[3].replace(",", "")) for cells in lines[3:]] == 2 * [47_787] + 2 * [59_851]
  assert [int(cells[4]) for cells in lines[2:]] == [1, 2, 2, 3, 3]
  assert [float(cells[8]) for cells in lines[3:]] == [46.53, 69.16, 78.63, 82.15]
  assert "Strong ends" in text and "standard deviation of such a difference" in text
  for picture in (report.ACCURACIES, report.CURVES):
    assert (folder / "out" / picture).read_bytes().startswith(b"\x89PNG") and picture in text

  result = _run(folder, "submit", *options)
  assert result.returncode == 0, result.stderr
  rows = [json.loads(line) for line in (folder / "out" / "results.jsonl").read_text().splitlines()]
  best = max(row["accuracy"] for row in rows if row["role"] == "student")
  assert f"is submitted, {100 * best:.2f} % on the validation images" in result.stderr
  with open(folder / "out" / "submission.csv", newline="") as file:
    header, *submitted = csv.reader(file)
  assert header == ["Id", "Category"]
  assert [number for number, _ in submitted] == [f"{n:04}" for n in range(13)]
  assert {int(category) for _, category in submitted} <= set(range(11))
  images, _ = tfkd.data.load_arrays("food11", "evaluation", data_dir=str(folder / "data"), image_size=32)
  row = max((row for row in rows if row["role"] == "student"), key=lambda row: row["accuracy"])
  (file,) = (folder / "out" / "students").glob(f"compression-{row['method']}-*seed{row['seed']}.keras")
  middle = (np.asarray(images)[:, 2:34, 2:34] / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
  expected = quantization.load(str(file)).predict(middle.astype(np.float32), verbose=0)
  assert [int(category) for _, category in submitted] == expected.argmax(axis=1).tolist()


@pytest.mark.parametrize(
  "script, options, words",
  [
    ("simple", ["--max_parameters=40000"], "plain_cnn has 47,787 trainable parameters, more than"),
    ("strong", ["--strong_student=resnet20"], "Total params"),
    ("simple", ["--dataset=cifar10"], "cifar10 has no option --image_size"),
    ("boss", ["--hint_weight=-1"], "hint_weight"),
    ("strong", ["--strong_student=resnet7"], "resnet7"),
    ("simple", ["--data_dir=nowhere"], "no directory nowhere/training"),
    ("submit", ["--submitted=best"], "submitted"),
    ("simple", ["--teacher_checkpoint=nowhere.pth", "--on_bad_image=skip"], "nowhere.pth"),
  ],
)
def test_invalid_flags_are_named_without_a_traceback(folder, script, options, words):
  result = run_briefly(f"food11.{script}", folder, *TINY, *options)
  assert result.returncode == 1
  assert words in result.stderr + result.stdout and "Traceback" not in result.stderr


@pytest.mark.end_to_end
def test_throughput_names_the_bottleneck(folder):
  result = run(
    "food11.throughput", folder, "--teacher=resnet18x0.0625", "--image_size=32", "--images=24", "--rounds=1",
    "--batch_size=8",
  )  # fmt: skip
  assert result.returncode == 0, result.stderr
  rates = {cells[1].strip(): float(cells[2].replace(",", "")) for cells in (
    line.split("|") for line in result.stdout.splitlines()[4:] if line.startswith("|")
  )}  # fmt: skip
  assert list(rates) == ["decode", "input", "training", "both"] and min(rates.values()) > 0
  slower = min(("input", "training"), key=rates.get)
  assert f"The bottleneck is {slower}" in result.stdout
