"""Students are exported to TFLite files that LiteRT runs with the same results."""

import functools
import os
import re
import shutil
import types
import warnings

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from tfkd import data, deploy, quantization
from tfkd.models import svhn_cnn

pytestmark = pytest.mark.usefixtures("no_trial_conversion")
layers = keras.layers
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def _network():
  """Builds three convolutions with batch normalisation and ReLU, and a dense layer; the kernels differ in shape."""
  inputs = x = keras.Input((32, 32, 3), name="images")
  for i, (width, stride) in enumerate([(4, 4), (8, 2), (8, 1)]):
    x = layers.Conv2D(width, 3, strides=stride, padding="same", use_bias=False, name=f"conv{i}")(x)
    x = layers.ReLU(name=f"relu{i}")(layers.BatchNormalization(momentum=0.8, name=f"bn{i}")(x))
  return keras.Model(inputs, layers.Dense(10, name="logits")(layers.Flatten(name="flat")(x)), name="small")


@pytest.fixture(scope="module")
def dataset(images_once):
  x, y = images_once
  return data.batches(np.round(x * 255).astype(np.uint8), y, 24, scale_pixels=True)


@pytest.fixture(scope="module")
def exported(images_once, tmp_path_factory, no_trial_conversion):
  """Function from a scheme to a trained student, its file and its size; each is made once."""
  x, y = images_once
  directory = tmp_path_factory.mktemp("students")

  @functools.cache
  def make(scheme):
    keras.utils.set_random_seed(0)
    student = _network()
    if scheme != "float":
      student = quantization.quantize(student, scheme, calibration_data=x)
    accuracy = keras.metrics.SparseCategoricalAccuracy("accuracy")
    student.compile(keras.optimizers.Adam(5e-3), loss=LOSS, metrics=[accuracy])
    student.fit(x, y, batch_size=16, epochs=6, verbose=0)
    path = str(directory / f"{scheme}.tflite")
    return types.SimpleNamespace(student=student, path=path, size=deploy.to_tflite(student, path))

  return make


@pytest.fixture(scope="module")
def full_size(tmp_path_factory, no_trial_conversion):
  """Paths of the homework's network in float, w8a8 and w4a8, by scheme."""
  paths = {scheme: str(tmp_path_factory.mktemp("full") / f"{scheme}.tflite") for scheme in ("float", "w8a8", "w4a8")}
  deploy.to_tflite(svhn_cnn(), paths["float"])
  # With the metadata that a sweep writes.
  fields = {"data": "house_numbers", "mean": 0.0, "std": 1.0, "network": "svhn_cnn", "method": "labels + teacher"}
  fields |= {"teacher": "svhn_cnn", "objectives": ["soft_targets"], "temperature": 5.0, "accuracy": 0.9731}
  for scheme in ("w8a8", "w4a8"):
    student = quantization.quantize(
      svhn_cnn(), scheme, calibration_data=np.random.default_rng(0).random((16, 32, 32, 3))
    )
    deploy.to_tflite(student, paths[scheme], labels=list("0123456789"), metadata=fields)
  return paths


def _float_tensors(path):
  interpreter = Interpreter(model_path=path)
  interpreter.allocate_tensors()
  return [d["name"] for d in interpreter.get_tensor_details() if d["dtype"] == np.float32]


@pytest.mark.parametrize("scheme", ["float", "w2a1", "w1a1"])
def test_a_float_file_reproduces_the_student(scheme, exported, images, dataset):
  made = exported(scheme)
  logits, labels = deploy.logits(made.path, dataset)
  np.testing.assert_allclose(logits, made.student.predict(dataset, verbose=0), atol=1e-4)
  np.testing.assert_array_equal(labels, images[1])
  measured = deploy.evaluate(made.path, dataset)
  loss, accuracy = made.student.evaluate(dataset, verbose=0)
  assert measured["images"] == 64 and measured["bytes"] == made.size
  np.testing.assert_allclose([measured["loss"], measured["accuracy"]], [loss, accuracy], rtol=1e-4)


@pytest.mark.parametrize("scheme", ["w8a8", "w4a8"])
def test_an_integer_file_agrees_with_its_student(scheme, exported, dataset):
  made = exported(scheme)
  interpreter = Interpreter(model_path=made.path)
  interpreter.allocate_tensors()
  (given,), (taken,) = interpreter.get_input_details(), interpreter.get_output_details()
  assert given["dtype"] == taken["dtype"] == np.int8 and _float_tensors(made.path) == []
  logits, _ = deploy.logits(made.path, dataset)
  assert np.abs(logits - made.student.predict(dataset, verbose=0)).max() <= 4 * taken["quantization"][0]


@pytest.mark.parametrize("scheme, share", [("w8a8", 0.27), ("w4a8", 0.14)])
def test_integer_files_are_small(scheme, share, full_size):
  assert os.path.getsize(full_size[scheme]) <= share * os.path.getsize(full_size["float"])


def test_latency_is_measured_in_turns(full_size):
  measured = deploy.benchmark(full_size["w8a8"], 1, full_size["float"], rounds=10, calls=5)
  assert 0 < measured["median_ms"] <= measured["p95_ms"] and 0 < measured["float_median_ms"] <= measured["float_p95_ms"]
  assert measured["ratio"] == measured["median_ms"] / measured["float_median_ms"] < 0.8
  assert deploy.benchmark(full_size["w8a8"], rounds=2, calls=2).keys() == {"median_ms", "p95_ms"}


def test_a_float_student_is_quantized_after_training(exported, images, dataset, tmp_path):
  student = exported("float").student
  path = str(tmp_path / "ptq.tflite")
  deploy.to_tflite(student, path, representative_data=images[0])
  assert _float_tensors(path) == []
  measured = deploy.evaluate(path, dataset, student)
  assert measured["agreement"] >= 0.95 and measured["worst_steps"] <= 6
  assert deploy.read_metadata(path)["scheme"] == "PTQ w8a8"
  deploy.to_tflite(student, path, representative_data=dataset, io_dtype="float32")
  assert len(_float_tensors(path)) == 2  # Images and logits.
  assert deploy.evaluate(path, dataset, student)["agreement"] >= 0.95


def test_unsuitable_arguments_are_refused_and_an_existing_file_stays(exported, tmp_path):
  path = tmp_path / "a.tflite"
  path.write_bytes(b"before")
  for options, words in (
    ({"io_dtype": "uint8"}, 'io_dtype must be "int8" or "float32"; got \'uint8\''),
    (
      {"io_dtype": "int8"},
      'io_dtype="int8" is for files that compute in integers; a float student does not. Pass represent',
    ),
    ({"labels": ["a"]}, "got 1 labels for a student of 10 classes"),
    ({"representative_data": np.zeros((0, 32, 32, 3))}, "representative_data yielded no batch"),
  ):
    with pytest.raises(ValueError, match=re.escape(words)):
      deploy.to_tflite(exported("float").student, str(path), **options)
    assert path.read_bytes() == b"before" and [p.name for p in tmp_path.iterdir()] == ["a.tflite"]


def test_representative_data_is_refused_for_a_trained_scheme(exported, images, tmp_path):
  with pytest.raises(ValueError, match="representative_data is for float students; this one is w8a8"):
    deploy.to_tflite(exported("w8a8").student, str(tmp_path / "a.tflite"), representative_data=images[0])


def test_an_uncalibrated_student_is_exported_with_a_warning(tmp_path, caplog):
  student = quantization.quantize(_network(), "w8a8")
  deploy.to_tflite(student, str(tmp_path / "a.tflite"))
  assert "has uncalibrated ranges of [-6, 6]" in caplog.text


@pytest.mark.parametrize("scheme", ["float", "w8a8"])
def test_the_signature_names_images_and_logits(scheme, exported):
  interpreter = Interpreter(model_path=exported(scheme).path)
  assert interpreter.get_signature_list() == {"serving_default": {"inputs": ["images"], "outputs": ["logits"]}}
  assert interpreter.get_input_details()[0]["shape"].tolist() == [1, 32, 32, 3]


def test_constants_begin_at_multiples_of_sixteen_bytes(exported):
  with open(exported("float").path, "rb") as file:
    model = schema.Model.GetRootAs(file.read(), 0)
  starts = []
  for number in range(model.BuffersLength()):
    buffer = model.Buffers(number)
    if not buffer.DataIsNone() and buffer.DataLength():
      starts.append(buffer._tab.Vector(buffer._tab.Offset(4)))
  assert len(starts) > 8 and all(start % 16 == 0 for start in starts)


def test_a_successful_export_prints_nothing(exported, tmp_path, capfd):
  student = exported("w8a8").student
  capfd.readouterr()
  with warnings.catch_warnings():
    warnings.simplefilter("error")
    deploy.to_tflite(student, str(tmp_path / "a.tflite"))
  assert capfd.readouterr().err.replace("INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\n", "") == ""


def test_a_file_is_compared_with_its_student(exported, dataset):
  student, path = exported("w8a8").student, exported("w8a8").path
  scores, labels = deploy.logits(path, dataset)
  outputs = student.predict(dataset, verbose=0)
  measured = deploy.evaluate(path, dataset, student)
  interpreter = Interpreter(model_path=path)
  scale = interpreter.get_output_details()[0]["quantization"][0]
  expected = {
    "accuracy": np.mean(scores.argmax(1) == labels),
    "student_accuracy": np.mean(outputs.argmax(1) == labels),
    "agreement": np.mean(scores.argmax(1) == outputs.argmax(1)),
    "worst_difference": np.abs(scores - outputs).max(),
    "mean_difference": np.abs(scores - outputs).mean(),
    "worst_steps": np.abs(scores - outputs).max() / scale,
  }
  np.testing.assert_allclose([measured[name] for name in expected], list(expected.values()), rtol=1e-5)
  assert measured["agreement"] >= 0.95 and measured["worst_steps"] <= 4
  with pytest.raises(ValueError, match="was not exported from small with its present weights"):
    deploy.evaluate(path, dataset, _network())


def test_operations_that_stay_in_float_are_named(images, tmp_path):
  inputs = keras.Input((32, 32, 3))
  x = layers.Conv2D(4, 3, name="conv")(inputs)
  x = layers.LayerNormalization(name="norm")(x)
  model = keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))
  student = quantization.quantize(model, "w8a8", calibration_data=images[0], float_layers=["norm"])
  with pytest.raises(ValueError, match="the w8a8 student model.* does not convert to integers only"):
    deploy.to_tflite(student, str(tmp_path / "student.tflite"))
  assert not list(tmp_path.iterdir())


def test_an_operation_that_tflite_lacks_is_named(tmp_path):
  inputs = keras.Input((4, 4, 1))
  outputs = layers.Flatten()(tf.linalg.svd(tf.squeeze(inputs, -1), compute_uv=False)[:, :, None])
  with pytest.raises(ValueError, match=r"svd_model does not convert to TFLite: .*Svd.* Log: \S+$") as error:
    deploy.to_tflite(keras.Model(inputs, outputs, name="svd_model"), str(tmp_path / "a.tflite"))
  with open(str(error.value).rpartition("Log: ")[2], encoding="utf-8") as log:
    assert "Svd" in log.read()
  assert not list(tmp_path.iterdir())


def test_int4_kernels_of_a_file_are_the_levels_that_were_trained(exported):
  student, path = exported("w4a8").student, exported("w4a8").path
  interpreter = Interpreter(
    model_path=path, experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
  )
  interpreter.allocate_tensors()
  details = {tuple(d["shape"].tolist()): d["index"] for d in interpreter.get_tensor_details()}
  for name in ("conv0", "conv1", "conv2"):
    layer = student.get_layer(f"quant_{name}")
    ((kernel, quantizer, ranges),) = layer._weight_vars
    rounded = np.moveaxis(quantizer(kernel, training=False, weights=ranges).numpy(), 3, 0)  # As TFLite has it.
    steps = np.abs(rounded).max(axis=(1, 2, 3), keepdims=True) / 7
    in_file = interpreter.get_tensor(details[rounded.shape])
    # Batch normalisation, which the file has multiplied in, may turn the sign of a channel.
    signs = np.sign((rounded * in_file).sum(axis=(1, 2, 3), keepdims=True))
    np.testing.assert_allclose(in_file * signs, rounded / steps, atol=1e-3)
    assert len(np.unique(in_file)) > 10


def test_missing_damaged_and_unsuitable_files_are_named(exported, dataset, tmp_path):
  with pytest.raises(FileNotFoundError, match="no TFLite file at"):
    deploy.evaluate(str(tmp_path / "none.tflite"), dataset)
  (tmp_path / "text.tflite").write_text("not a model")
  with pytest.raises(ValueError, match="text.tflite is not a TFLite file"):
    deploy.evaluate(str(tmp_path / "text.tflite"), dataset)
  shutil.copy(exported("float").path, tmp_path / "a.tflite")
  content = (tmp_path / "a.tflite").read_bytes()
  (tmp_path / "half.tflite").write_bytes(content[: len(content) // 2])
  for function in (deploy.read_metadata, lambda path: deploy.evaluate(path, dataset)):
    with pytest.raises(ValueError, match="half.tflite is (not a TFLite file|damaged)"):
      function(str(tmp_path / "half.tflite"))
  small = tf.data.Dataset.from_tensors((np.zeros((2, 8, 8, 3), np.float32), np.zeros(2, np.int32)))
  with pytest.raises(ValueError, match=r"takes images of shape \(32, 32, 3\); the data set has \(8, 8, 3\)"):
    deploy.evaluate(str(tmp_path / "a.tflite"), small)
