"""A sweep trains what is missing, once."""

import json
import os

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from safetensors.numpy import save_file

from tests.losses import references
from tests.sweeps.small import network, sweep
from tfkd import data, deploy, models, quantization
from tfkd.data import house_numbers
from tfkd.models import torch_weights
from tfkd.objectives import SoftTargets
from tfkd.sweeps import FLOAT, StudentSpec, student_stage, trainer
from tfkd.teachers import CachedTeacher

pytestmark = pytest.mark.usefixtures("run_eagerly")
STUDENTS = [
  StudentSpec("q1", "labels", "w2a1", 0),
  StudentSpec("q2", "soft", "w8a8", 1, (SoftTargets(5.0),), 0.0, 5.0, {"soft_weight": 1.0}, start="teacher"),
]


def test_rows_files_and_resuming(tmp_path, data_dir, monkeypatch):
  runs = sweep(tmp_path, data_dir)
  runs.run(STUDENTS)
  teacher, low, eight = runs.results.rows()
  assert teacher["role"] == "teacher" and teacher["agreement"] == 1
  assert (low["method"], low["scheme"], low["seed"], low["temperature"]) == ("labels", "w2a1", 0, None)
  assert (eight["experiment"], eight["temperature"], eight["dataset"]) == ("q2", 5.0, "house_numbers")
  assert {"accuracy", "loss", "agreement", "packed_bytes", "seconds", "images_per_second", "versions", "config"} <= set(
    low
  )
  assert (low["choices"], eight["choices"]) == ({}, {"soft_weight": 1.0})
  assert low["history"]["val_accuracy"] == [pytest.approx(low["accuracy"], abs=1e-6)]
  assert low["test_images"] == 40 and low["config"]["epochs"] == 1
  assert low["config"]["data_dir"] == os.path.basename(data_dir)

  # The row states what the files hold.
  images, labels = runs.examples.arrays("test")
  logits = {}
  for row, name in (
    (teacher, "teacher/model"),
    (low, "students/q1-labels-w2a1-seed0"),
    (eight, "students/q2-soft-w8a8-T5-soft_weight1-seed1"),
  ):
    model = quantization.load(str(tmp_path / f"{name}.keras"))
    logits[name] = model.predict(images / np.float32(255), verbose=0)
    assert row["accuracy"] == pytest.approx(np.mean(logits[name].argmax(1) == labels))
    agreement = np.mean(logits[name].argmax(1) == logits["teacher/model"].argmax(1))
    assert row["agreement"] == pytest.approx(agreement)
    loss = keras.losses.sparse_categorical_crossentropy(labels, logits[name], from_logits=True)
    assert row["loss"] == pytest.approx(np.mean(loss), rel=1e-4)
  outputs = str(tmp_path / "teacher" / "outputs" / "test")
  np.testing.assert_allclose(CachedTeacher(outputs).outputs, logits["teacher/model"], atol=1e-4)
  path = str(tmp_path / "students" / "q2-soft-w8a8-T5-soft_weight1-seed1.tflite")
  dataset = data.batches(images, labels, 20, scale_pixels=True)
  assert deploy.evaluate(path, dataset)["accuracy"] == eight["tflite_accuracy"]
  assert eight["tflite_bytes"] == os.path.getsize(path) and "tflite_bytes" not in low

  # Finished models are not trained again; missing ones are.
  fitted = []
  original = trainer.fit
  monkeypatch.setattr(
    trainer, "fit", lambda *args, **kwargs: fitted.append(kwargs["log_dir"]) or original(*args, **kwargs)
  )
  sweep(tmp_path, data_dir).run(STUDENTS)
  assert fitted == [] and len(runs.results.rows()) == 3
  lines = (tmp_path / "results.jsonl").read_text().splitlines()
  (tmp_path / "results.jsonl").write_text("\n".join([lines[0], lines[2]]) + "\n")
  (tmp_path / "teacher" / "outputs" / "test" / "outputs.bin").write_bytes(b"damaged")
  sweep(tmp_path, data_dir).run(STUDENTS)
  assert [os.path.basename(path) for path in fitted] == ["q1-labels-w2a1-seed0"]
  assert [json.loads(line)["experiment"] for line in (tmp_path / "results.jsonl").read_text().splitlines()] == [
    None, "q2", "q1",
  ]  # fmt: skip
  assert not os.listdir(tmp_path / "checkpoints")


def test_student_starts_from_the_weights_of_teacher_or_student(tmp_path, data_dir):
  # A learning rate of zero keeps what the student began with.
  runs = sweep(tmp_path, data_dir, learning_rate=0.0)
  float_student = StudentSpec("q1", "labels", FLOAT, 7)
  starts = ("teacher", "scratch", float_student)
  students = [StudentSpec("q1", "labels", "w8a8", seed, start=start) for seed, start in enumerate(starts)]
  runs.run([float_student, *students])
  teacher = runs.load_teacher().get_layer("conv1").kernel
  kernels = [runs.load(student).get_layer("quant_conv1")._weight_vars[0][0] for student in students]
  np.testing.assert_array_equal(kernels[0], teacher)
  assert np.abs(kernels[1] - teacher).max() > 0.01
  np.testing.assert_array_equal(kernels[2], runs.load(float_student).get_layer("conv1").kernel)
  assert np.abs(kernels[2] - teacher).max() > 0.01
  with pytest.raises(ValueError, match="start from a float student of the same network; q1-labels-w8a8-seed0 is w8a8"):
    runs.run([StudentSpec("q1", "labels", "w8a8", 9, start=students[0])])


def test_row_describes_the_last_epoch_and_the_seed_sets_initial_weights(tmp_path, data_dir, monkeypatch):
  original = trainer.fit

  def fit(*args, **kwargs):
    history, seconds = original(*args, **kwargs)
    # Adds an earlier epoch whose metrics are better than those of all later epochs.
    best = {name: [0.0 if "loss" in name else 1.0, *values] for name, values in history.items()}
    return best, seconds

  monkeypatch.setattr(trainer, "fit", fit)
  # A learning rate of 0 keeps what the students began with.
  runs = sweep(tmp_path, data_dir, learning_rate=0.0)
  students = [StudentSpec("q", "soft", FLOAT, seed, (SoftTargets(5.0),)) for seed in (0, 1, 7)]
  runs.run(students)
  images, labels = runs.examples.arrays("test")
  t = runs.load_teacher().predict(images / np.float32(255), verbose=0)
  kernels = []
  for student in students:
    model = runs.load(student)
    s = model.predict(images / np.float32(255), verbose=0)
    (row,) = runs.results.find(**student.key)
    assert row["accuracy"] == pytest.approx(np.mean(s.argmax(1) == labels))
    assert row["agreement"] == pytest.approx(np.mean(s.argmax(1) == t.argmax(1)))
    loss = keras.losses.sparse_categorical_crossentropy(labels, s, from_logits=True)
    assert row["loss"] == pytest.approx(np.mean(loss), rel=1e-4)
    keras.utils.set_random_seed(student.seed)
    expected = network(10, (32, 32, 3))
    for a, b in zip(model.trainable_variables, expected.trainable_variables, strict=True):
      np.testing.assert_array_equal(a, b)
    kernels.append(model.get_layer("conv0").kernel.numpy())
  assert all(np.abs(a - b).max() > 1e-3 for a, b in zip(kernels, kernels[1:] + kernels[:1], strict=True))
  (row,) = runs.results.find(role="teacher")
  assert row["accuracy"] == pytest.approx(np.mean(t.argmax(1) == labels))
  loss = keras.losses.sparse_categorical_crossentropy(labels, t, from_logits=True)
  assert row["loss"] == pytest.approx(np.mean(loss), rel=1e-4)


def test_scheme_that_cannot_be_exported_raises_before_teacher_training(tmp_path, data_dir):
  runs = sweep(tmp_path, data_dir)
  with pytest.raises(ValueError, match=r"'tokens' \(Tokens\)"):
    runs.run([STUDENTS[0], StudentSpec("q1", "labels", "w8a8", 0, network="vit_tiny16")])
  assert not runs.results.rows() and not os.path.exists(tmp_path / "teacher")


@pytest.mark.end_to_end
def test_files_contain_metadata(tmp_path, data_dir):
  runs = sweep(tmp_path, data_dir, teacher="svhn_cnnx0.125", student="svhn_cnnx0.125")
  student = StudentSpec("q3", "labels + teacher", "w8a8", 1, (SoftTargets(5.0),), 1.0, 5.0)
  low = StudentSpec("q3", "labels", "w2a1", 1, network=network)
  runs.run([student, low])
  fields = deploy.read_metadata(str(tmp_path / "students" / f"{student.name}.tflite"))
  del fields["weights_sha256"]
  (row,) = runs.rows(student)
  assert fields.pop("accuracy") == round(row["tflite_accuracy"], 4)
  assert fields == {
    "data": "house_numbers", "mean": 0.0, "std": 1.0, "network": "svhn_cnnx0.125", "method": "labels + teacher",
    "seed": 1, "teacher": "svhn_cnnx0.125", "objectives": ["soft_targets"], "temperature": 5.0, "scheme": "w8a8",
    "labels": list("0123456789"), "task": "classes",
  }  # fmt: skip
  (row,) = runs.rows(low)
  pack = str(tmp_path / "students" / f"{low.name}.pack")
  assert row["packed_bytes"] == os.path.getsize(pack)
  np.testing.assert_array_equal(
    deploy.unpack(pack).predict(runs.examples.batches("test"), verbose=0), runs.predict(low, "test")
  )


def test_changed_data_in_the_same_workdir_raises(tmp_path, data_dir):
  sweep(tmp_path, data_dir)
  with pytest.raises(ValueError, match="limit_train: None there, 50 now"):
    sweep(tmp_path, data_dir, limit_train=50)
  other = tmp_path / "other"
  house_numbers.write(other, seed=9, sizes={"train": 96, "test": 40})
  with pytest.raises(ValueError, match="data_sha256"):
    sweep(tmp_path, str(other))


def test_batch_larger_than_the_data_raises(tmp_path, data_dir):
  with pytest.raises(ValueError, match="batch_size is 97, but there are only 96 training examples"):
    sweep(tmp_path, data_dir, batch_size=97)


@pytest.mark.end_to_end
@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_mixed_precision_teacher_with_quantized_student(tmp_path, data_dir, precision):
  runs = sweep(tmp_path, data_dir, mixed_precision=precision)
  runs.run(STUDENTS[:1])
  assert quantization.load(str(tmp_path / "teacher" / "model.keras")).get_layer("conv1").compute_dtype == precision
  assert keras.mixed_precision.global_policy().name == "float32"
  assert np.isfinite([row["loss"] for row in runs.results.rows()]).all()


def test_start_from_another_network_raises(tmp_path, data_dir):
  runs = sweep(tmp_path, data_dir, teacher="svhn_cnnx0.125", student="svhn_cnnx0.25")
  wrong = {
    "student=svhn_cnnx0.25 must be teacher=svhn_cnnx0.125": STUDENTS[1],
    "need a student_checkpoint in the configuration": STUDENTS[0]._replace(start="checkpoint"),
    "start must be \"scratch\", .*; got 'teachr'": STUDENTS[0]._replace(start="teachr"),
  }
  for words, student in wrong.items():
    with pytest.raises(ValueError, match=words):
      runs.run([student])
  assert not (tmp_path / "teacher").exists()  # Before the teacher is trained.


def test_invalid_training_options_raise_before_the_workdir_is_claimed(tmp_path, data_dir):
  wrong = (
    ("student", "resnet9", "resnet9"),
    ("ema", 0.9, "use at most 0.2154"),
    ("views", 2, "augment=True is needed"),
  )
  for field, value, words in wrong:
    with pytest.raises(ValueError, match=words):
      sweep(tmp_path / "out", data_dir, **{field: value})
  assert not (tmp_path / "out").exists()


@pytest.mark.end_to_end
@pytest.mark.parametrize(
  "training",
  [
    {"augment": True},
    {"augment": True, "views": 3},
    {"mixup": 0.4},
    {"label_smoothing": 0.1},
    {"augment": True, "mixup": 0.4, "ema": 0.2},
  ],
  ids=lambda training: "+".join(training),
)
def test_augmentation_mixup_and_label_smoothing_reach_the_student(tmp_path, data_dir, training, monkeypatch):
  seen = []
  original = student_stage.StudentStage.distiller

  def distiller(self, student, teacher):
    seen.append(teacher)
    return original(self, student, teacher)

  monkeypatch.setattr(student_stage.StudentStage, "distiller", distiller)
  students = [STUDENTS[0], STUDENTS[1]._replace(scheme="float", start="scratch")]
  runs = sweep(tmp_path, data_dir, **training)
  runs.run(students)
  # Images that the teacher saw before have logits that were computed before; labels alone need no teacher at all.
  precomputed = [isinstance(teacher, CachedTeacher) for teacher in seen]
  new_images = "mixup" in training or "augment" in training and "views" not in training
  assert precomputed == [not new_images] * 2
  assert (seen[0] is None) == new_images
  assert ("agreement" in runs.results.rows()[1]["history"]) == precomputed[0]
  for row, student in zip(runs.results.rows()[1:], students, strict=True):
    model = quantization.load(str(tmp_path / "students" / f"{student.name}.keras"))
    logits = model.predict(runs.examples.arrays("test")[0] / np.float32(255), verbose=0)
    assert row["accuracy"] == pytest.approx(np.mean(logits.argmax(1) == runs.examples.arrays("test")[1]))
    # The test's labels are not smoothed.
    loss = keras.losses.sparse_categorical_crossentropy(runs.examples.arrays("test")[1], logits, from_logits=True)
    assert row["loss"] == pytest.approx(np.mean(loss), rel=1e-4)
  kept = {name for name in os.listdir(tmp_path / "teacher" / "outputs") if not name.startswith(".")}
  assert kept == ({"test"} if new_images else {"test", "train-3views" if "views" in training else "train"})


def test_mixed_precision_applies_to_float_students(tmp_path, data_dir):
  runs = sweep(tmp_path, data_dir, mixed_precision="bfloat16", augment=True)
  runs.run([STUDENTS[1]._replace(scheme="float", start="scratch")])
  path = str(tmp_path / "students" / "q2-soft-float-T5-soft_weight1-seed1.keras")
  assert quantization.load(path).get_layer("conv1").compute_dtype == "bfloat16"


@pytest.mark.parametrize(
  "training",
  [
    {},
    {"augment": True},
    {"augment": True, "views": 2},
    {"mixup": 0.4},
    {"label_smoothing": 0.1},
    {"augment": True, "mixup": 0.4},
  ],
)
def test_student_and_teacher_read_the_same_transformed_batch(tmp_path, data_dir, training, monkeypatch):
  original, seen = trainer.fit, []

  def fit(model, train, *args, **kwargs):
    seen.append(train(0).take(1).cache(str(tmp_path / f"seen{len(seen)}")))
    return original(model, lambda first_step, seen=seen[-1]: seen.repeat(), *args, **kwargs)

  monkeypatch.setattr(trainer, "fit", fit)
  # One step at a learning rate of zero: the student still has the weights of the recorded loss.
  runs = sweep(tmp_path, data_dir, learning_rate=0.0, batch_size=96, **training)
  student = StudentSpec("q3", "soft", "float", 3, (SoftTargets(5.0),))
  runs.run([student])
  ((images, labels),) = seen[1]
  images = images[0] if isinstance(images, tuple) else images
  labels = tf.one_hot(labels, 10) if labels.shape.rank == 1 else labels
  logits = quantization.load(str(tmp_path / "students" / f"{student.name}.keras"))(images, training=True).numpy()
  answers = quantization.load(str(tmp_path / "teacher" / "model.keras")).predict(images, verbose=0)
  (history,) = (row["history"] for row in runs.results.rows()[1:])
  hard = references.soft_target_cross_entropy(np.log(np.maximum(labels, 1e-30)), logits, 1.0).mean()
  assert history["hard_loss"] == [pytest.approx(hard, rel=1e-4)]
  soft = 25 * references.soft_target_kl(answers, logits, 5.0).mean()
  assert history["soft_targets"] == [pytest.approx(soft, rel=2e-3, abs=1e-6)]


def test_last_batch_smaller_than_the_number_of_replicas_raises(tmp_path, data_dir):
  with pytest.raises(ValueError, match="the last batch of an epoch has 1 examples for 4 replicas"):
    sweep(tmp_path, data_dir, strategy="mirrored", batch_size=19)
  runs = sweep(tmp_path, data_dir, strategy="mirrored", batch_size=39)  # The test split's 40 in 39 and 1.
  sizes = [len(y) for _, y in runs.examples.batches("test")]
  assert sum(sizes) == 40 and sizes[-1] >= 4


def test_students_with_their_own_network_and_epochs(tmp_path, data_dir):
  runs = sweep(tmp_path, data_dir)
  shared, own = StudentSpec("q", "a", FLOAT, 0), StudentSpec("q", "a", FLOAT, 0, network="plain_cnn", epochs=2)
  assert own.name == "q-a-float-networkplain_cnn-epochs2-seed0"
  runs.run([shared, own])
  first, second = runs.rows(shared) + runs.rows(own)
  assert len(first["history"]["loss"]) == 1 and len(second["history"]["loss"]) == 2
  assert second["choices"] == {"network": "plain_cnn", "epochs": 2}
  assert second["parameters"] == models.plain_cnn(10, (32, 32, 3)).count_params() != first["parameters"]
  logits = runs.predict(own, "test")
  images, labels = runs.examples.arrays("test")
  assert np.mean(logits.argmax(axis=1) == labels) == pytest.approx(second["accuracy"])
  model = quantization.load(str(tmp_path / "students" / f"{own.name}.keras"))
  np.testing.assert_allclose(logits, model.predict(images / np.float32(255), verbose=0), atol=1e-4)


def test_only_the_last_layer_of_a_teacher_that_a_function_builds_is_trained(tmp_path, data_dir):
  pretrained = models.plain_cnn(10, (32, 32, 3))

  def built(num_classes, input_shape):
    model = models.plain_cnn(num_classes, input_shape)
    model.set_weights(pretrained.get_weights())
    return model

  runs = sweep(tmp_path, data_dir, teacher=built, teacher_head_only=True)
  runs.train_teacher()
  for layer, before in zip(runs.load_teacher().layers, pretrained.layers, strict=True):
    for values, initial in zip(layer.get_weights(), before.get_weights(), strict=True):
      assert np.array_equal(values, initial) == (layer.name != "logits")
  with pytest.raises(ValueError, match="or of a function that builds a pretrained teacher; there is neither"):
    sweep(tmp_path / "other", data_dir, teacher="plain_cnn", teacher_head_only=True)


def test_teacher_from_a_checkpoint_is_not_trained(tmp_path, data_dir):
  source = models.build("resnet18x0.0625", 10, (32, 32, 3))
  state = {}
  for layer in source.layers:
    for variable in layer.weights:
      array = variable.numpy()
      if "kernel" in variable.name:
        array = array.T if array.ndim == 2 else array.transpose(3, 2, 0, 1)
      state[torch_weights._resnet_key(layer.name, variable)] = array
  path = str(tmp_path / "resnet18.safetensors")
  save_file({key: np.ascontiguousarray(array) for key, array in state.items()}, path)
  options = {"teacher": "resnet18x0.0625", "teacher_checkpoint": path}
  runs = sweep(tmp_path / "out", data_dir, **options)
  student = StudentSpec("q", "soft", FLOAT, 0, (SoftTargets(2.0),), 0.0)
  runs.run([student])
  images, labels = runs.examples.arrays("test")
  teacher = runs.results.find(role="teacher")[0]
  expected = source.predict(images / np.float32(255), verbose=0)
  np.testing.assert_allclose(runs.teacher.outputs["test"].outputs, expected, atol=1e-4)
  assert teacher["accuracy"] == pytest.approx(np.mean(expected.argmax(axis=1) == labels))
  assert teacher["config"]["teacher_checkpoint"] == "resnet18.safetensors" and "loss" not in teacher["history"]
  # Another file in its place is another teacher.
  save_file({key: np.ascontiguousarray(2 * array) for key, array in state.items()}, path)
  with pytest.raises(ValueError, match="another configuration .*teacher_checkpoint_sha256"):
    sweep(tmp_path / "out", data_dir, **options)
  with pytest.raises(ValueError, match="does not fit resnet18"):
    sweep(tmp_path / "other", data_dir, **options | {"teacher": "resnet18x0.125"}).train_teacher()
