"""Students with few bits are packed and restored exactly."""

import json
import zipfile

import numpy as np
import pytest
import tf_keras as keras

from tfkd import deploy, models, quantization
from tfkd.deploy.packed import _from_bits, _to_bits
from tfkd.quantization import FixedGrid

pytestmark = pytest.mark.usefixtures("no_trial_conversion")
layers = keras.layers


def _network():
  """Builds plain, depthwise and residual convolutions, with and without normalisation, before and after ReLU."""
  inputs = keras.Input((32, 32, 3))
  x = layers.Conv2D(8, 3, strides=4, use_bias=False, name="conv0")(inputs)
  x = layers.ReLU(name="relu0")(layers.BatchNormalization(name="bn0")(x))
  y = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="conv1")(x)
  y = layers.ReLU(name="relu1")(layers.BatchNormalization(name="bn1")(y))
  x = layers.Add(name="add")([x, layers.Conv2D(8, 1, name="conv2")(y)])
  x = layers.ReLU(name="relu2")(layers.BatchNormalization(name="bn2")(x))
  x = layers.Conv2D(8, 3, activation="relu", name="conv3")(layers.MaxPooling2D(name="pool")(x))
  return keras.Model(inputs, layers.Dense(10, name="logits")(layers.Flatten(name="flat")(x)), name="small")


def _student(network, scheme, **options):
  """Builds a quantized student whose weights and statistics all differ from their initial values."""
  model = _network() if network == "small" else models.build(network)
  student = quantization.quantize(model, scheme, **options)
  rng = np.random.default_rng(0)
  for variable in student.variables:
    if variable.dtype.is_floating:
      variable.assign_add(0.1 * rng.random(variable.shape, np.float32))
  return student


@pytest.fixture(scope="module")
def packed(tmp_path_factory, no_trial_conversion):
  """Content of the pack of a small student."""
  path = tmp_path_factory.mktemp("packed") / "a.pack"
  deploy.pack(quantization.quantize(_network(), "w2a1"), str(path))
  return path.read_bytes()


@pytest.mark.parametrize("bits", range(1, 9))
def test_bits_are_restored_and_stored_densely(bits):
  levels = np.random.default_rng(bits).integers(0, 2**bits, 1001).astype(np.uint8)
  content = _to_bits(levels, bits)
  assert len(content) == -(-1001 * bits // 8)
  np.testing.assert_array_equal(_from_bits(content, 1001, bits), levels)


@pytest.mark.parametrize(
  "network, scheme", [("small", "w2a1"), ("small", "w3a4"), ("small", "w1a1"), ("wrn-10-1", "w8a7")]
)
def test_a_restored_student_has_bit_identical_outputs(network, scheme, images, tmp_path):
  student = _student(network, scheme)
  path = str(tmp_path / "a.pack")
  assert deploy.pack(student, path) == (tmp_path / "a.pack").stat().st_size
  restored = deploy.unpack(path)
  expected = student(images[0])
  assert np.std(expected) > 0
  np.testing.assert_array_equal(restored(images[0]), expected)
  assert not restored.trainable_variables


def test_kernels_of_the_file_have_as_many_values_as_their_bits_allow(images, tmp_path):
  student = _student("small", FixedGrid(2, 1, 3.0), float_layers=["logits", "conv0"])
  path = str(tmp_path / "a.pack")
  deploy.pack(student, path)
  restored = deploy.unpack(path)
  assert len(np.unique(restored.get_layer("quant_conv3").layer.kernel)) == 4
  np.testing.assert_array_equal(restored.get_layer("conv0").kernel, student.get_layer("conv0").kernel)
  np.testing.assert_array_equal(restored(images[0]), student(images[0]))


def test_the_pack_of_the_homeworks_student_is_small(tmp_path):
  student = quantization.quantize(models.svhn_cnn(), "w2a1")
  sizes = quantization.sizes(student)
  size = deploy.pack(student, str(tmp_path / "a.pack"))
  assert sizes["packed_bytes"] < size <= 0.08 * sizes["float32_bytes"]


@pytest.mark.parametrize("scheme, words", [("w8a8", "is w8a8: use to_tflite"), (None, "is float: use to_tflite")])
def test_students_with_eight_feature_bits_are_not_packed(scheme, words, tmp_path):
  student = keras.Sequential([keras.Input((4,)), layers.Dense(3, activation="relu"), layers.Dense(2)])
  if scheme:
    student = quantization.quantize(student, scheme)
  with pytest.raises(ValueError, match=words):
    deploy.pack(student, str(tmp_path / "a.pack"))
  assert not list(tmp_path.iterdir())


def test_damaged_and_missing_packs_are_refused(packed, tmp_path):
  path = tmp_path / "a.pack"
  content = packed
  for cut in (0, 10, len(content) // 2, len(content) - 1):
    path.write_bytes(content[:cut])
    with pytest.raises(ValueError, match="a.pack is not a packed student, or damaged"):
      deploy.unpack(str(path))
  with zipfile.ZipFile(path, "w") as archive:
    archive.writestr("student.json", "{}")
  with pytest.raises(ValueError, match="a.pack is not a packed student, or damaged"):
    deploy.unpack(str(path))
  with pytest.raises(FileNotFoundError, match="no packed student at"):
    deploy.unpack(str(tmp_path / "none.pack"))


def test_code_in_a_pack_is_refused(packed, tmp_path):
  path = tmp_path / "a.pack"
  path.write_bytes(packed)
  with zipfile.ZipFile(path) as archive:
    header, weights = json.loads(archive.read("student.json")), archive.read("weights.bin")
  inputs = keras.Input((4,))
  model = keras.Model(inputs, inputs)
  config = keras.saving.serialize_keras_object(keras.layers.Lambda(lambda x: x, name="evil"))
  header["model"] = keras.saving.serialize_keras_object(model)
  header["model"]["config"]["layers"].append({**config, "name": "evil", "inbound_nodes": []})
  with zipfile.ZipFile(path, "w") as archive:
    archive.writestr("student.json", json.dumps(header))
    archive.writestr("weights.bin", weights)
  with pytest.raises(ValueError, match="safe_mode"):
    deploy.unpack(str(path))
