"""Students as TFLite files, run by LiteRT."""

import re
import warnings

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from tfkd import data, deploy, quantization
from tfkd.models import svhn_cnn

layers = keras.layers
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@pytest.fixture
def dataset(images):
  x, y = images
  return data.batches(np.round(x * 255).astype(np.uint8), y, 24, scale_pixels=True)


def _student(scheme, images):
  x, y = images
  student = svhn_cnn(width=4)
  if scheme != "float":
    student = quantization.quantize(student, scheme, calibration_data=x)
  student.compile(keras.optimizers.Adam(5e-3), loss=LOSS, metrics=["accuracy"])
  student.fit(x, y, batch_size=16, epochs=6, verbose=0)
  return student


def _float_tensors(path):
  interpreter = Interpreter(model_path=path)
  interpreter.allocate_tensors()
  return [d["name"] for d in interpreter.get_tensor_details() if d["dtype"] == np.float32]


@pytest.mark.parametrize("scheme", ["float", "w2a1", "w1a1"])
def test_a_float_file_reproduces_the_student(scheme, images, dataset, tmp_path):
  student = _student(scheme, images)
  path = str(tmp_path / "student.tflite")
  size = deploy.to_tflite(student, path)
  logits, labels = deploy.logits(path, dataset)
  np.testing.assert_allclose(logits, student.predict(dataset, verbose=0), atol=1e-4)
  np.testing.assert_array_equal(labels, images[1])
  measured = deploy.evaluate(path, dataset)
  loss, accuracy = student.evaluate(dataset, verbose=0)
  assert measured["images"] == 64 and measured["bytes"] == size
  np.testing.assert_allclose([measured["loss"], measured["accuracy"]], [loss, accuracy], rtol=1e-4)


@pytest.mark.parametrize("scheme", ["w8a8", "w4a8"])
def test_an_integer_file_agrees_with_its_student(scheme, images, dataset, tmp_path):
  student = _student(scheme, images)
  path = str(tmp_path / "student.tflite")
  deploy.to_tflite(student, path)
  interpreter = Interpreter(model_path=path)
  interpreter.allocate_tensors()
  (given,), (taken,) = interpreter.get_input_details(), interpreter.get_output_details()
  assert given["dtype"] == taken["dtype"] == np.int8 and _float_tensors(path) == []
  logits, _ = deploy.logits(path, dataset)
  assert np.abs(logits - student.predict(dataset, verbose=0)).max() <= 4 * taken["quantization"][0]


def test_integer_files_are_small(images, tmp_path):
  path = str(tmp_path / "a.tflite")
  size = deploy.to_tflite(svhn_cnn(), path)
  for scheme, share in (("w8a8", 0.27), ("w4a8", 0.14)):
    student = quantization.quantize(svhn_cnn(), scheme, calibration_data=images[0])
    # With what a sweep says in it.
    fields = {"data": "house_numbers", "mean": 0.0, "std": 1.0, "network": "svhn_cnn", "method": "labels + teacher"}
    fields |= {"teacher": "svhn_cnn", "objectives": ["soft_targets"], "temperature": 5.0, "accuracy": 0.9731}
    assert deploy.to_tflite(student, path, labels=list("0123456789"), metadata=fields) <= share * size


def test_a_float_student_is_quantized_after_its_training(images, dataset, tmp_path):
  student = _student("float", images)
  path = str(tmp_path / "ptq.tflite")
  deploy.to_tflite(student, path, representative_data=images[0])
  assert _float_tensors(path) == []
  measured = deploy.evaluate(path, dataset, student)
  assert measured["agreement"] >= 0.95 and measured["worst_steps"] <= 6
  assert deploy.read_metadata(path)["scheme"] == "PTQ w8a8"
  deploy.to_tflite(student, path, representative_data=dataset, io_dtype="float32")
  assert len(_float_tensors(path)) == 2  # Images and logits.
  assert deploy.evaluate(path, dataset, student)["agreement"] >= 0.95


@pytest.mark.parametrize(
  "options, words",
  [
    ({"io_dtype": "uint8"}, 'io_dtype must be "int8" or "float32"; got \'uint8\''),
    (
      {"io_dtype": "int8"},
      'io_dtype="int8" is for files that compute in integers; a float student does not. Give represent',
    ),
    ({"labels": ["a"]}, "got 1 labels for a student of 10 classes"),
    ({"representative_data": np.zeros((0, 32, 32, 3))}, "representative_data yielded no batch"),
  ],
)
def test_arguments_that_do_not_fit_are_refused_and_the_file_before_stays(options, words, tmp_path):
  path = tmp_path / "a.tflite"
  path.write_bytes(b"before")
  with pytest.raises(ValueError, match=re.escape(words)):
    deploy.to_tflite(svhn_cnn(width=2), str(path), **options)
  assert path.read_bytes() == b"before" and [p.name for p in tmp_path.iterdir()] == ["a.tflite"]


def test_ranges_of_a_trained_scheme_are_its_own(images, tmp_path):
  student = quantization.quantize(svhn_cnn(width=2), "w8a8", calibration_data=images[0])
  with pytest.raises(ValueError, match="representative_data is for float students; this one is w8a8"):
    deploy.to_tflite(student, str(tmp_path / "a.tflite"), representative_data=images[0])


def test_a_student_without_ranges_is_exported_with_a_warning(tmp_path, caplog):
  student = quantization.quantize(svhn_cnn(width=2), "w8a8")
  deploy.to_tflite(student, str(tmp_path / "a.tflite"))
  assert "has ranges of [-6, 6] that no data has set" in caplog.text


def test_the_signature_says_images_and_logits(images, tmp_path):
  path = str(tmp_path / "a.tflite")
  for scheme in ("float", "w8a8"):
    student = svhn_cnn(width=2)
    if scheme != "float":
      student = quantization.quantize(student, scheme, calibration_data=images[0])
    deploy.to_tflite(student, path)
    interpreter = Interpreter(model_path=path)
    assert interpreter.get_signature_list() == {"serving_default": {"inputs": ["images"], "outputs": ["logits"]}}
    assert interpreter.get_input_details()[0]["shape"].tolist() == [1, 32, 32, 3]


def test_constants_begin_at_multiples_of_sixteen_bytes(tmp_path):
  path = tmp_path / "a.tflite"
  deploy.to_tflite(svhn_cnn(width=2), str(path))
  model = schema.Model.GetRootAs(path.read_bytes(), 0)
  starts = []
  for number in range(model.BuffersLength()):
    buffer = model.Buffers(number)
    if not buffer.DataIsNone() and buffer.DataLength():
      starts.append(buffer._tab.Vector(buffer._tab.Offset(4)))
  assert len(starts) > 8 and all(start % 16 == 0 for start in starts)


def test_an_export_that_succeeds_says_nothing(images, tmp_path, capfd):
  student = quantization.quantize(svhn_cnn(width=2), "w8a8", calibration_data=images[0])
  capfd.readouterr()
  with warnings.catch_warnings():
    warnings.simplefilter("error")
    deploy.to_tflite(student, str(tmp_path / "a.tflite"))
  assert capfd.readouterr().err.replace("INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\n", "") == ""


def test_a_file_is_compared_with_its_student(images, dataset, tmp_path):
  student = _student("w8a8", images)
  path = str(tmp_path / "a.tflite")
  deploy.to_tflite(student, path)
  scores, labels = deploy.logits(path, dataset)
  answers = student.predict(dataset, verbose=0)
  measured = deploy.evaluate(path, dataset, student)
  interpreter = Interpreter(model_path=path)
  scale = interpreter.get_output_details()[0]["quantization"][0]
  expected = {
    "accuracy": np.mean(scores.argmax(1) == labels),
    "student_accuracy": np.mean(answers.argmax(1) == labels),
    "agreement": np.mean(scores.argmax(1) == answers.argmax(1)),
    "worst_difference": np.abs(scores - answers).max(),
    "mean_difference": np.abs(scores - answers).mean(),
    "worst_steps": np.abs(scores - answers).max() / scale,
  }
  np.testing.assert_allclose([measured[name] for name in expected], list(expected.values()), rtol=1e-5)
  assert measured["agreement"] >= 0.95 and measured["worst_steps"] <= 4
  with pytest.raises(ValueError, match="was made of another model, or of other weights, than svhn_cnn"):
    deploy.evaluate(path, dataset, svhn_cnn(width=4))


def test_latency_is_measured_in_turns(images, tmp_path):
  paths = [str(tmp_path / name) for name in ("8.tflite", "32.tflite")]
  deploy.to_tflite(quantization.quantize(svhn_cnn(), "w8a8", calibration_data=images[0]), paths[0])
  deploy.to_tflite(svhn_cnn(), paths[1])
  measured = deploy.benchmark(paths[0], 1, paths[1], rounds=10, calls=5)
  assert 0 < measured["median_ms"] <= measured["p95_ms"] and 0 < measured["float_median_ms"] <= measured["float_p95_ms"]
  assert measured["ratio"] == measured["median_ms"] / measured["float_median_ms"] < 0.8
  assert deploy.benchmark(paths[0], rounds=2, calls=2).keys() == {"median_ms", "p95_ms"}


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


def test_four_bits_of_a_file_are_the_levels_that_were_trained(images, tmp_path):
  student = _student("w4a8", images)
  path = str(tmp_path / "a.tflite")
  deploy.to_tflite(student, path)
  interpreter = Interpreter(
    model_path=path, experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
  )
  interpreter.allocate_tensors()
  details = {tuple(d["shape"].tolist()): d["index"] for d in interpreter.get_tensor_details()}
  for name in ("conv1", "conv3", "conv6"):
    layer = student.get_layer(f"quant_{name}")
    ((kernel, quantizer, ranges),) = layer._weight_vars
    rounded = np.moveaxis(quantizer(kernel, training=False, weights=ranges).numpy(), 3, 0)  # As TFLite has it.
    steps = np.abs(rounded).max(axis=(1, 2, 3), keepdims=True) / 7
    in_file = interpreter.get_tensor(details[rounded.shape])
    # Batch normalisation, which the file has multiplied in, may turn the sign of a channel.
    signs = np.sign((rounded * in_file).sum(axis=(1, 2, 3), keepdims=True))
    np.testing.assert_allclose(in_file * signs, rounded / steps, atol=1e-3)
    assert len(np.unique(in_file)) > 10


def test_bad_files_are_named(images, dataset, tmp_path):
  with pytest.raises(FileNotFoundError, match="no TFLite file at"):
    deploy.evaluate(str(tmp_path / "none.tflite"), dataset)
  (tmp_path / "text.tflite").write_text("not a model")
  with pytest.raises(ValueError, match="text.tflite is not a TFLite file"):
    deploy.evaluate(str(tmp_path / "text.tflite"), dataset)
  deploy.to_tflite(svhn_cnn(width=2), str(tmp_path / "a.tflite"))
  content = (tmp_path / "a.tflite").read_bytes()
  (tmp_path / "half.tflite").write_bytes(content[: len(content) // 2])
  for function in (deploy.read_metadata, lambda path: deploy.evaluate(path, dataset)):
    with pytest.raises(ValueError, match="half.tflite is (not a TFLite file|damaged)"):
      function(str(tmp_path / "half.tflite"))
  small = tf.data.Dataset.from_tensors((np.zeros((2, 8, 8, 3), np.float32), np.zeros(2, np.int32)))
  with pytest.raises(ValueError, match=r"takes images of shape \(32, 32, 3\); the data set has \(8, 8, 3\)"):
    deploy.evaluate(str(tmp_path / "a.tflite"), small)
