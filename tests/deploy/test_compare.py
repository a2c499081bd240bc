"""Files are compared with their Keras models layer by layer."""

import keras as keras3
import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from tfkd import deploy, quantization, reporting
from tfkd.quantization.unrounded import without_rounding

pytestmark = pytest.mark.usefixtures("no_trial_conversion", "run_eagerly")
layers = keras.layers
RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(20, 8, 8, 3)).astype(np.float32)


def _network():
  inputs = x = keras.Input((8, 8, 3), name="images")
  for i in range(2):
    x = layers.Conv2D(6, 3, use_bias=False, name=f"conv{i}")(x)
    x = layers.ReLU(name=f"relu{i}")(layers.BatchNormalization(name=f"bn{i}")(x))
    x = layers.MaxPool2D(name="pool")(x) if i == 0 else x
  return keras.Model(inputs, layers.Dense(4, name="logits")(layers.Flatten()(x)), name="small")


def _exported(tmp_path, scheme, model=None, data=IMAGES):
  model = model or _network()
  student = quantization.quantize(model, scheme, calibration_data=data)
  path = tmp_path / f"{scheme}.tflite"
  deploy.to_tflite(student, path)
  return model, student, path


def _db(signal, noisy):
  signal, noisy = np.float64(signal), np.float64(noisy)
  return 10 * np.log10((signal**2).sum() / ((signal - noisy) ** 2).sum())


def test_ratios_are_those_of_the_outputs(tmp_path):
  model, student, path = _exported(tmp_path, "w8a8")
  found = deploy.compare(path, student, IMAGES)
  assert found.count == 20
  assert [layer.name for layer in found.layers] == ["relu0", "pool", "relu1", "logits"]
  assert [layer.operation for layer in found.layers] == ["CONV_2D", "MAX_POOL_2D", "CONV_2D", "FULLY_CONNECTED"]
  outputs, _ = deploy.logits(path, tf.data.Dataset.from_tensor_slices((IMAGES, np.zeros(20))).batch(6))
  last = found.layers[-1]
  assert last.snr == pytest.approx(_db(student.predict(IMAGES, verbose=0), outputs), abs=1e-3)
  assert last.float_snr == pytest.approx(_db(model.predict(IMAGES, verbose=0), outputs), abs=1e-3)
  assert all(layer.worst_steps < 3 and layer.snr > layer.float_snr > 15 for layer in found.layers)


def test_a_layer_is_compared_with_that_layer(tmp_path):
  """The features of the file equal those of Keras, rounded to the steps of the file's tensor."""
  model, student, path = _exported(tmp_path, "w8a8")
  first = keras.Model(model.inputs, model.get_layer("relu0").output)
  wrapper = student.get_layer("quant_relu0")
  most = next(v.numpy() for v in wrapper.weights if "max" in v.name)
  rounded = keras.Model(student.inputs, wrapper.output).predict(IMAGES, verbose=0)
  (found, *_) = deploy.compare(path, student, IMAGES).layers
  of_float = first.predict(IMAGES, verbose=0)
  assert found.clipped == pytest.approx((of_float > most * (1 + 0.5 / 255)).mean(), abs=1e-4)
  assert found.float_snr == pytest.approx(_db(of_float, rounded), abs=0.1)  # Most values equal those of Keras.
  assert found.snr > 50


def test_a_narrow_range_is_seen_where_it_is(tmp_path):
  student = quantization.quantize(_network(), "w8a8", calibration_data=IMAGES)
  wrapper = student.get_layer("quant_relu1")
  (most,) = [v for v in wrapper.weights if "max" in v.name]
  most.assign(most / 15)
  deploy.to_tflite(student, tmp_path / "narrow.tflite")
  by_name = {layer.name: layer for layer in deploy.compare(tmp_path / "narrow.tflite", student, IMAGES).layers}
  assert by_name["pool"].float_snr > 20 > 10 > by_name["relu1"].float_snr
  assert by_name["relu1"].clipped > 0.05 > 0.02 > by_name["relu0"].clipped
  assert by_name["relu1"].snr > 30  # Keras rounds in that range too.


def test_damaged_weights_are_seen_where_they_are(tmp_path):
  """A file that computes something else than its student."""
  from ai_edge_litert import schema_py_generated as schema

  from tfkd.deploy.metadata import with_metadata
  from tfkd.quantization.file_format import serialized

  _, student, path = _exported(tmp_path, "w8a8")
  content = schema.ModelT.InitFromObj(schema.Model.GetRootAs(path.read_bytes(), 0))
  (_, second) = [op for op in content.subgraphs[0].operators if len(op.inputs) == 3][:2]
  kernel = content.subgraphs[0].tensors[second.inputs[1]]
  content.buffers[kernel.buffer].data = np.roll(content.buffers[kernel.buffer].data, 5)
  path.write_bytes(with_metadata(serialized(content, 10**5), deploy.read_metadata(path)))
  first, pool, second, logits = deploy.compare(path, student, IMAGES).layers
  assert min(first.snr, pool.snr) > 40 > 10 > max(second.snr, logits.snr)


@pytest.mark.parametrize("scheme", ["w2a2-lsq", "w2a1"])
def test_files_that_simulate_few_bits_equal_their_students(tmp_path, scheme):
  _, student, path = _exported(tmp_path, scheme, data=np.abs(IMAGES))
  found = deploy.compare(path, student, np.abs(IMAGES))
  assert {"relu0", "relu1", "logits"} <= {layer.name for layer in found.layers}
  assert all(layer.snr > 90 and layer.worst_steps is None for layer in found.layers)
  assert found.layers[-1].float_snr < 30


@pytest.mark.parametrize("data", [None, IMAGES], ids=["float", "quantized after training"])
def test_float_students_have_one_ratio(tmp_path, data):
  model = _network()
  deploy.to_tflite(model, tmp_path / "a.tflite", representative_data=data)
  found = deploy.compare(tmp_path / "a.tflite", model, IMAGES)
  assert [layer.name for layer in found.layers] == ["relu0", "pool", "relu1", "logits"]
  assert all(layer.float_snr is None and layer.snr > (100 if data is None else 25) for layer in found.layers)
  text = reporting.layer_report(found)
  assert "float, dB" not in text and "of float" not in text


def test_the_worst_examples_come_first(tmp_path):
  _, student, path = _exported(tmp_path, "w8a8")
  images = IMAGES.copy()
  images[13] *= 9  # Far out of the calibrated range.
  found = deploy.compare(path, student, (images, np.zeros(20)), num_examples=3)
  assert found.examples[0].index == 13 and len(found.examples) == 3
  worst = found.examples[0]
  assert worst.float_difference > 0.2 > 0.05 > worst.keras_difference
  outputs = student.predict(images[[13]], verbose=0)
  assert worst.classes[1] == outputs.argmax()
  assert f"| 13 | {worst.keras_difference:.4g} | {worst.float_difference:.4g} |" in reporting.layer_report(found)


def _two_ends():
  one, other = keras.Input((6,), name="one"), keras.Input((6,), name="other")
  shared = layers.Dense(5, activation="relu", name="shared")
  x = layers.Add(name="sum")([shared(one), shared(other)])
  return keras.Model([one, other], {"a": layers.Dense(3, name="a")(x), "b": layers.Dense(1, name="b")(x)})


def _nested():
  inner = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(4, 3, name="conv"), layers.ReLU(name="relu")])
  inputs = keras.Input((8, 8, 3))
  pooled = layers.GlobalAveragePooling2D(name="pool")(inner(inputs))
  return keras.Model(inputs, layers.Dense(3, activation="softmax", name="classes")(pooled))


def _keras3():
  return keras3.Sequential(
    [keras3.Input((8, 8, 3)), keras3.layers.Conv2D(4, 3, activation="relu", name="conv"), keras3.layers.Flatten()]
  )


VECTORS = RNG.normal(size=(20, 6)).astype(np.float32)
NETWORKS = {
  "two inputs and outputs": (_two_ends, {"one": VECTORS, "other": VECTORS[::-1]}, {"shared", "sum", "a", "b"}),
  "nested": (_nested, IMAGES, {"relu", "pool", "classes"}),
  "Keras 3": (_keras3, IMAGES, {"conv"}),
  "sequences": (
    lambda: keras.Sequential([keras.Input((8, 3)), layers.Conv1D(4, 3, activation="relu", name="conv")]),
    IMAGES[:, 0],
    {"conv"},
  ),
}


@pytest.mark.parametrize("kind", ["float", "ptq", "w8a8"])
@pytest.mark.parametrize("name", NETWORKS)
def test_kinds_of_networks(tmp_path, name, kind):
  build, data, expected = NETWORKS[name]
  student, path = build(), tmp_path / "a.tflite"
  if kind == "w8a8":
    student = quantization.quantize(student, "w8a8", calibration_data=data)
  deploy.to_tflite(student, path, representative_data=data if kind == "ptq" else None)
  found = deploy.compare(path, student, data)
  names = {layer.name.rpartition("/")[2] for layer in found.layers}
  assert expected <= names
  assert all(layer.snr > 20 for layer in found.layers), reporting.layer_report(found)
  assert len(found.examples) == 5


def test_the_picture_shows_both_ratios(tmp_path):
  _, student, path = _exported(tmp_path, "w8a8")
  text = reporting.layer_report(deploy.compare(path, student, IMAGES), tmp_path / "layers.png")
  assert text.startswith("| layer | operation | type | SNR to Keras, dB | SNR to float, dB | worst steps | clipped |")
  assert (tmp_path / "layers.png").stat().st_size > 5000


@pytest.mark.parametrize("scheme", ["w8a8", "w2a1", "w4a4-lsq", "w4a8-lsq"])
def test_a_student_without_rounding_is_the_float_model(scheme):
  model = _network()
  student = quantization.quantize(model, scheme, calibration_data=IMAGES)
  before = student(IMAGES).numpy()
  with without_rounding(student):
    np.testing.assert_allclose(student(IMAGES), model(IMAGES), atol=2e-5)
  np.testing.assert_array_equal(student(IMAGES), before)
  assert np.abs(before - model(IMAGES)).max() > 1e-3


def test_wrong_arguments_are_named(tmp_path):
  model, student, path = _exported(tmp_path, "w8a8")
  with pytest.raises(ValueError, match="was not exported from small with its present weights"):
    deploy.compare(path, model, IMAGES)
  endless = tf.data.Dataset.from_tensor_slices(IMAGES).batch(4).repeat()
  with pytest.raises(ValueError, match="data has no end"):
    deploy.compare(path, student, endless)
  assert deploy.compare(path, student, endless.take(2)).count == 8
  with pytest.raises(ValueError, match="no example"):
    deploy.compare(path, student, IMAGES[:0])
  with pytest.raises(ValueError, match="input 'images' has shape"):
    deploy.compare(path, student, IMAGES[:, :4])
  with pytest.raises(FileNotFoundError):
    deploy.compare(tmp_path / "none.tflite", student, IMAGES)
