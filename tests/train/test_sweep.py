"""A sweep trains what is missing, once."""

import json
import os

import numpy as np
import pytest
import tf_keras as keras

from tfkd import deploy, quantization
from tfkd.data import house_numbers
from tfkd.models import svhn_cnn
from tfkd.objectives import SoftTargets
from tfkd.train import Student, Sweep, Training, sweep


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
  folder = tmp_path_factory.mktemp("data")
  house_numbers.write(folder, sizes={"train": 96, "test": 40})
  return str(folder)


def _sweep(workdir, data_dir, **training):
  options = {"dataset": "house_numbers", "data_dir": data_dir, "epochs": 1, "teacher_epochs": 1, "batch_size": 32}
  return Sweep(str(workdir), Training(**options | training), lambda n, shape: svhn_cnn(n, shape, width=2))


STUDENTS = [
  Student("q1", "labels", "w2a1", 0),
  Student("q2", "soft", "w8a8", 1, (SoftTargets(5.0),), 0.0, 5.0, start="teacher"),
]


def test_rows_files_and_resume(tmp_path, data_dir, monkeypatch):
  runs = _sweep(tmp_path, data_dir)
  runs.run(STUDENTS)
  teacher, low, eight = runs.results.rows()
  assert teacher["question"] == "teacher" and teacher["agreement"] == 1
  assert (low["method"], low["scheme"], low["seed"], low["temperature"]) == ("labels", "w2a1", 0, None)
  assert (eight["question"], eight["temperature"], eight["dataset"]) == ("q2", 5.0, "house_numbers")
  assert {"accuracy", "loss", "agreement", "packed_bytes", "seconds", "images_per_second", "versions", "flags"} <= set(
    low
  )
  assert low["test_images"] == 40 and low["flags"]["epochs"] == 1

  # The row states what the files hold.
  images, labels = runs._test
  logits = {}
  for row, name in (
    (teacher, "teacher/model"),
    (low, "students/q1-labels-w2a1-seed0"),
    (eight, "students/q2-soft-w8a8-T5-seed1"),
  ):
    model = quantization.load(str(tmp_path / f"{name}.keras"))
    logits[name] = model.predict(images / np.float32(255), verbose=0)
    assert row["accuracy"] == pytest.approx(np.mean(logits[name].argmax(1) == labels))
    agreement = np.mean(logits[name].argmax(1) == logits["teacher/model"].argmax(1))
    assert row["agreement"] == pytest.approx(agreement)
    loss = keras.losses.sparse_categorical_crossentropy(labels, logits[name], from_logits=True)
    assert row["loss"] == pytest.approx(np.mean(loss), rel=1e-4)
  np.testing.assert_allclose(np.load(tmp_path / "teacher" / "logits.npz")["test"], logits["teacher/model"], atol=1e-4)
  path = str(tmp_path / "students" / "q2-soft-w8a8-T5-seed1.tflite")
  dataset = sweep.data.batches(images, labels, 20)
  assert deploy.evaluate(path, dataset)["accuracy"] == eight["tflite_accuracy"]
  assert eight["tflite_bytes"] == os.path.getsize(path) and "tflite_bytes" not in low

  # Nothing is done twice; what is missing is done.
  fitted = []
  original = sweep.fit
  monkeypatch.setattr(
    sweep, "fit", lambda *args, **kwargs: fitted.append(kwargs["logdir"]) or original(*args, **kwargs)
  )
  _sweep(tmp_path, data_dir).run(STUDENTS)
  assert fitted == [] and len(runs.results.rows()) == 3
  lines = (tmp_path / "results.jsonl").read_text().splitlines()
  (tmp_path / "results.jsonl").write_text("\n".join([lines[0], lines[2]]) + "\n")
  (tmp_path / "teacher" / "logits.npz").write_bytes(b"damaged")
  _sweep(tmp_path, data_dir).run(STUDENTS)
  assert [os.path.basename(path) for path in fitted] == ["q1-labels-w2a1-seed0"]
  assert [json.loads(line)["question"] for line in (tmp_path / "results.jsonl").read_text().splitlines()] == [
    "teacher", "q2", "q1",
  ]  # fmt: skip
  assert not os.listdir(tmp_path / "checkpoints")


def test_a_student_that_starts_from_the_teacher_has_its_weights(tmp_path, data_dir):
  # A learning rate of zero keeps what the student began with.
  runs = _sweep(tmp_path, data_dir, learning_rate=0.0)
  runs.run([Student("q1", "labels", "w8a8", seed, start=start) for seed, start in ((0, "teacher"), (1, "scratch"))])
  teacher = quantization.load(str(tmp_path / "teacher" / "model.keras")).get_layer("conv3").kernel
  kernels = [
    quantization.load(str(tmp_path / "students" / f"q1-labels-w8a8-seed{s}.keras"))
    .get_layer("quant_conv3")
    ._weight_vars[0][0]
    for s in (0, 1)
  ]
  np.testing.assert_array_equal(kernels[0], teacher)
  assert np.abs(kernels[1] - teacher).max() > 0.01


def test_other_data_in_the_same_workdir_is_refused(tmp_path, data_dir):
  _sweep(tmp_path, data_dir)
  with pytest.raises(ValueError, match="limit_train: None there, 50 now"):
    _sweep(tmp_path, data_dir, limit_train=50)
  other = tmp_path / "other"
  house_numbers.write(other, seed=9, sizes={"train": 96, "test": 40})
  with pytest.raises(ValueError, match="data_sha256"):
    _sweep(tmp_path, str(other))


def test_a_batch_larger_than_the_data_names_the_flag(tmp_path, data_dir):
  with pytest.raises(ValueError, match="--batch_size is 97, but there are only 96 training images"):
    _sweep(tmp_path, data_dir, batch_size=97)


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_a_mixed_precision_teacher_teaches_a_quantized_student(tmp_path, data_dir, precision):
  runs = _sweep(tmp_path, data_dir, mixed_precision=precision)
  runs.run(STUDENTS[:1])
  assert quantization.load(str(tmp_path / "teacher" / "model.keras")).get_layer("conv1").compute_dtype == precision
  assert keras.mixed_precision.global_policy().name == "float32"
  assert np.isfinite([row["loss"] for row in runs.results.rows()]).all()
