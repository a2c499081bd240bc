"""Students as TFLite files, run by LiteRT."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from ai_edge_litert.interpreter import Interpreter

from tfkd import data, deploy, quantization
from tfkd.models import svhn_cnn

layers = keras.layers
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@pytest.fixture
def dataset(images):
  x, y = images
  return data.batches(np.round(x * 255).astype(np.uint8), y, 24)


def _student(scheme, images):
  x, y = images
  student = svhn_cnn(width=4)
  if scheme != "float":
    student = quantization.quantize(student, scheme, calibration_data=x)
  student.compile(keras.optimizers.Adam(5e-3), loss=LOSS, metrics=["accuracy"])
  student.fit(x, y, batch_size=16, epochs=6, verbose=0)
  return student


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
  assert given["dtype"] == taken["dtype"] == np.int8
  assert not any(d["dtype"] == np.float32 for d in interpreter.get_tensor_details())
  logits, _ = deploy.logits(path, dataset)
  assert np.abs(logits - student.predict(dataset, verbose=0)).max() <= 4 * taken["quantization"][0]


def test_integer_files_are_small(images, tmp_path):
  student = quantization.quantize(svhn_cnn(), "w8a8", calibration_data=images[0])
  share = deploy.to_tflite(student, str(tmp_path / "8.tflite")) / quantization.sizes(student)["float32_bytes"]
  assert share <= 0.27
  student = quantization.quantize(svhn_cnn(), "w4a8", calibration_data=images[0])
  share = deploy.to_tflite(student, str(tmp_path / "4.tflite")) / quantization.sizes(student)["float32_bytes"]
  assert share <= 0.145


def test_operations_that_stay_in_float_are_named(images, tmp_path):
  inputs = keras.Input((32, 32, 3))
  x = layers.Conv2D(4, 3, name="conv")(inputs)
  x = layers.LayerNormalization(name="norm")(x)
  model = keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))
  student = quantization.quantize(model, "w8a8", calibration_data=images[0], float_layers=["norm"])
  with pytest.raises(ValueError, match="w8a8 student does not convert to integers only"):
    deploy.to_tflite(student, str(tmp_path / "student.tflite"))
  assert not list(tmp_path.iterdir())


def test_bad_files_are_named(images, dataset, tmp_path):
  with pytest.raises(FileNotFoundError, match="no TFLite file at"):
    deploy.evaluate(str(tmp_path / "none.tflite"), dataset)
  (tmp_path / "text.tflite").write_text("not a model")
  with pytest.raises(ValueError, match="text.tflite is not a TFLite file"):
    deploy.evaluate(str(tmp_path / "text.tflite"), dataset)
  deploy.to_tflite(svhn_cnn(width=2), str(tmp_path / "a.tflite"))
  small = tf.data.Dataset.from_tensors((np.zeros((2, 8, 8, 3), np.float32), np.zeros(2, np.int32)))
  with pytest.raises(ValueError, match=r"takes images of shape \(32, 32, 3\); the data set has \(8, 8, 3\)"):
    deploy.evaluate(str(tmp_path / "a.tflite"), small)
