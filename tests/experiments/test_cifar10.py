"""Losses of the CIFAR-10 laboratories under each flag, and whole runs of their scripts."""

import json

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from absl import flags
from absl.testing import flagsaver
from PIL import Image

import tfkd
from experiments import run_flags
from experiments.cifar10 import lab_a, lab_b, laboratory
from tests.experiments.scripts import run, run_briefly
from tests.losses import references
from tfkd import models
from tfkd.data.cifar10 import CLASSES
from tfkd.features.taps import Reader
from tfkd.sweeps import SweepConfig

RNG = np.random.default_rng(0)
X = RNG.uniform(size=(6, 32, 32, 3)).astype(np.float32)
Y = np.arange(6) % 10
PRESETS = [(lab, preset) for lab in (lab_a, lab_b) for preset in lab.PRESETS]


@pytest.fixture
def given():
  if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()
  with flagsaver.flagsaver():
    run_flags.start(["lab"], lab_a.PRESETS)
    yield flags.FLAGS


@pytest.fixture(scope="module")
def pair():
  return models.build("resnet8"), models.build("resnet14")


def _evaluated(pair, student):
  """Returns the terms of the loss of a student, and its distiller."""
  distiller = tfkd.Distiller(pair[1], pair[0], student.objectives, student.hard_loss_weight)
  distiller.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
  return distiller.evaluate(X, Y, verbose=0, return_dict=True), distiller


def _cross_entropy(logits, labels):
  return references.soft_target_cross_entropy(40.0 * np.eye(10)[labels], logits, 1.0).mean()


@pytest.mark.parametrize("temperature, alpha", [(5.0, 0.8), (1.0, 0.3), (50.0, 0.0), (4.0, 1.0)])
def test_response_loss_is_alpha_t2_kl_plus_cross_entropy(pair, given, temperature, alpha):
  found, _ = _evaluated(pair, laboratory.response(0, temperature, alpha))
  student, teacher = (model.predict(X, verbose=0) for model in pair)
  soft = temperature**2 * references.soft_target_kl(teacher, student, temperature).mean()
  assert found["loss"] == pytest.approx(alpha * soft + (1 - alpha) * _cross_entropy(student, Y), rel=1e-4)


@pytest.mark.parametrize("feature_loss", ["normalized", "mse", "l2"])
@pytest.mark.parametrize("stages, weight, hard", [(["layer1", "layer2", "layer3"], 100.0, 1.0), (["layer2"], 1.0, 0.5)])
def test_feature_loss_is_the_mean_over_stages_plus_cross_entropy(pair, given, feature_loss, stages, weight, hard):
  with flagsaver.flagsaver(feature_loss=feature_loss, stages=stages, feature_weight=weight, feature_hard_weight=hard):
    found, distiller = _evaluated(pair, laboratory.feature(0))
  function = {"normalized": "normalized_feature_matching", "mse": "hint", "l2": "euclidean"}[feature_loss]
  (student, ours), (_, theirs) = (Reader(model, stages)(X) for model in pair)
  losses = []
  for stage, connector in zip(stages, distiller.objectives[0].connectors, strict=True):
    adapted = ours[stage] @ connector.kernel.numpy() + connector.bias.numpy()
    losses.append(getattr(references, function)(theirs[stage].numpy(), np.asarray(adapted)).mean())
  expected = weight * np.mean(losses) + hard * _cross_entropy(student.numpy(), Y)
  assert found["loss"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("alignment", ["average_pool", "interpolate"])
def test_stages_of_different_sizes_are_aligned_by_the_chosen_method(pair, given, alignment):
  with flagsaver.flagsaver(feature_loss="mse", stages=["layer1"], alignment=alignment):
    (match,) = laboratory.feature(0).objectives
  small, large = (
    tf.constant(RNG.normal(size=(2, 4, 4, 8)), tf.float32),
    tf.constant(RNG.normal(size=(2, 8, 8, 8)), tf.float32),
  )
  value = match(([large], [small]))
  adapted = match.connectors[0](small)
  if alignment == "average_pool":
    target = large.numpy().reshape(2, 4, 2, 4, 2, 8).mean(axis=(2, 4))
  else:
    target, adapted = large.numpy(), tf.image.resize(adapted, (8, 8))
  np.testing.assert_allclose(value, np.mean((target - adapted.numpy()) ** 2, axis=(1, 2, 3)), rtol=1e-4)


def test_flags_that_change_a_student_change_its_name(given):
  def names(**changed):
    with flagsaver.flagsaver(**changed):
      return laboratory.feature(0).name

  changes = [
    {}, {"feature_loss": "l2"}, {"alignment": "interpolate"}, {"stages": ["layer3"]}, {"feature_weight": 7.0},
    {"feature_hard_weight": 0.25}, {"scheme": "w8a8"},
  ]  # fmt: skip
  assert len({names(**change) for change in changes}) == len(changes)
  assert laboratory.response(1, 5.0, 0.8).name == "laboratory-response-float-T5-alpha0.8-seed1"


TRAINING = {
  "dataset": "food11", "data_dir": "here", "limit_train": 7, "image_size": 48, "on_bad_image": "skip",
  "teacher": "wrn-16-2", "teacher_checkpoint": "there.pth", "teacher_head_only": True, "student": "resnet8x4",
  "student_checkpoint": "here.pth",
  "epochs": 3, "teacher_epochs": 4, "batch_size": 9, "optimizer": "sgd", "learning_rate": 0.5,
  "teacher_learning_rate": 0.6, "schedule": "step", "warm_up": 0.2, "weight_decay": 0.3, "augment": False, "views": 6,
  "label_smoothing": 0.15, "mixup": 0.25, "ema": 0.35, "mixed_precision": "bfloat16", "strategy": "mirrored",
  "scale_learning_rate": True, "checkpoint_minutes": 0.75, "checkpoint_steps": 8,
}  # fmt: skip


def test_every_flag_reaches_the_training(given):
  assert TRAINING.keys() == set(SweepConfig._fields)
  with flagsaver.flagsaver(**TRAINING):
    assert run_flags.training()._asdict() == TRAINING


@pytest.mark.parametrize("lab, preset", PRESETS)
def test_presets_are_complete_and_buildable(given, lab, preset):
  with flagsaver.flagsaver(preset=preset):
    run_flags.start(["lab"], lab.PRESETS)
    training = run_flags.training()
    assert None not in (given.temperature, given.alpha, given.feature_weight, given.feature_hard_weight)
    student = models.build(training.student)
    for stage in given.stages:
      student.get_layer(stage)
    assert laboratory._is_grid(given.grid)
  assert lab.PUBLISHED.keys() == {"teacher", "labels", "response", "feature"}


@pytest.fixture
def folder(tmp_path):
  for split, per_class in (("train", 5), ("test", 2)):
    for name in CLASSES:
      (tmp_path / "data" / split / name).mkdir(parents=True)
      for i in range(per_class):
        image = RNG.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(image).save(tmp_path / "data" / split / name / f"{i}.jpg")
  return tmp_path


TINY = (
  "--data_dir=data", "--teacher=resnet8", "--student=resnet8", "--limit_train=32", "--epochs=1", "--teacher_epochs=1",
  "--batch_size=16", "--workdir=out", "--stages=layer1,layer3",
)  # fmt: skip


def _run(folder, lab, *given):
  return run(f"cifar10.{lab}", folder, *TINY, *given)


@pytest.mark.end_to_end
@pytest.mark.parametrize("lab, published", [("lab_a", "87.16"), ("lab_b", "2.03")])
def test_a_laboratory_writes_rows_report_and_pictures_and_resumes(folder, lab, published):
  result = _run(
    folder, lab, "--seeds=0,1", "--grid=4:0.5,8:0.5", "--grid_seeds=1", "--mixup=0.2", "--label_smoothing=0.1"
  )
  assert result.returncode == 0, result.stderr
  rows = [json.loads(line) for line in (folder / "out" / "results.jsonl").read_text().splitlines()]
  assert [(row["method"], row["seed"]) for row in rows[1:7]] == [
    (method, seed) for seed in (0, 1) for method in ("labels", "response", "feature")
  ]
  # The compared setting is a cell of the grid, and is trained only once.
  assert [(row["temperature"], row["choices"], row["seed"]) for row in rows[7:]] == [
    (4.0, {"alpha": 0.5}, 1), (8.0, {"alpha": 0.5}, 1),
  ]  # fmt: skip
  report = (folder / "out" / "report.md").read_text()
  assert report in result.stdout
  for words in ("| student, features |", published, "standard deviation of such a difference", "| 8 | 0.5 |"):
    assert words in report
  for picture in ("training_curves.png", "grid.png"):
    assert (folder / "out" / picture).read_bytes().startswith(b"\x89PNG") and picture in report
  again = _run(folder, lab, "--seeds=0", "--grid=", "--mixup=0.2", "--label_smoothing=0.1")
  assert again.returncode == 0, again.stderr
  assert "3 of 3 students are trained already" in again.stderr


@pytest.mark.parametrize(
  "given, words",
  [
    (["--grid=4"], "expected <temperature>:<alpha>"),
    (["--grid=4:2"], "expected <temperature>:<alpha>"),
    (["--grid_seeds=-1"], "expected whole numbers >= 0"),
    (["--alpha=1.5"], "alpha"),
    (["--temperature=0"], "expected a positive finite number"),
    (["--alignment=crop"], "average_pool"),
    (["--stages=layer9"], "layer9"),
  ],
)
def test_invalid_flags_are_named_without_a_traceback(folder, given, words):
  result = run_briefly("cifar10.lab_a", folder, *TINY, *given)
  assert result.returncode == 1
  assert words in result.stderr + result.stdout and "Traceback" not in result.stderr


@pytest.mark.end_to_end
def test_step_cost_measures_each_batch_size(folder):
  result = run("cifar10.step_cost", folder, "--teacher=resnet14", "--student=resnet8", "--batch_sizes=4,64")
  assert result.returncode == 0, result.stderr
  rows = [line.split("|")[1:-1] for line in result.stdout.splitlines() if line.startswith("|")][2:]
  assert [int(row[0]) for row in rows] == [4, 64]
  assert all(float(cell.replace(",", "")) > 0 for row in rows for cell in row)
  # 16 maps of 16 channels at 32x32, and as many bytes at two smaller sizes: a few MiB per image.
  assert 0.5 < float(result.stdout.split(" MiB per image")[0].split()[-1]) < 50
