"""Metadata is written to TFLite files, read back and protected by a digest."""

import os

import numpy as np
import pytest
import tensorflow as tf

from tfkd import deploy
from tfkd.deploy import metadata
from tfkd.models import svhn_cnn


@pytest.fixture(scope="module")
def written(tmp_path_factory):
  """A model and the content of its file."""
  path = tmp_path_factory.mktemp("metadata") / "a.tflite"
  fields = {"data": "svhn", "mean": [0.1, 0.2, 0.3], "temperature": 4.0, "method": "Größe \u4e2d"}
  model = svhn_cnn(width=2)
  deploy.to_tflite(model, str(path), labels=list("abcdefghij"), metadata=fields)
  return model, path.read_bytes()


@pytest.fixture
def path(written, tmp_path):
  (tmp_path / "a.tflite").write_bytes(written[1])
  return str(tmp_path / "a.tflite")


def test_metadata_is_read_as_it_was_given(path):
  fields = deploy.read_metadata(path)
  digest = fields.pop("weights_sha256")
  assert len(digest) == 64
  assert fields == {
    "data": "svhn", "mean": [0.1, 0.2, 0.3], "temperature": 4.0, "method": "Größe \u4e2d", "scheme": "float",
    "labels": list("abcdefghij"),
  }  # fmt: skip


def test_fields_are_added_and_the_network_stays(path):
  images = tf.data.Dataset.from_tensors((np.random.default_rng(0).random((3, 32, 32, 3), np.float32), np.zeros(3)))
  before, fields = deploy.logits(path, images)[0], deploy.read_metadata(path)
  deploy.write_metadata(path, accuracy=0.5, data="cifar10")
  assert deploy.read_metadata(path) == fields | {"accuracy": 0.5, "data": "cifar10"}
  np.testing.assert_array_equal(deploy.logits(path, images)[0], before)


def test_the_returned_and_logged_size_is_that_of_the_file(path, written, monkeypatch):
  logged = []
  monkeypatch.setattr(metadata.logging, "info", lambda words, *values: logged.append(values))
  size = deploy.write_metadata(path, accuracy=np.float32(0.5), note="x" * 1000, mean=np.zeros(3), std=1)
  assert size == os.path.getsize(path) and logged == [(path, size)]
  fields = deploy.read_metadata(path)
  assert fields["accuracy"] == 0.5 and fields["mean"] == [0.0, 0.0, 0.0]
  assert deploy.to_tflite(written[0], path, metadata=fields) == os.path.getsize(path) == logged[-1][1]


@pytest.mark.parametrize("mean, std", [(0.5, 0.0), ("a", 1.0), (float("nan"), 1.0), ([0.1, 0.2], [1.0] * 3)])
def test_invalid_mean_and_std_are_refused(path, mean, std):
  with pytest.raises(ValueError, match="mean and std must be"):
    deploy.write_metadata(path, mean=mean, std=std)
  assert deploy.read_metadata(path)["mean"] == [0.1, 0.2, 0.3]
  with pytest.raises(TypeError, match="must be JSON values; got object"):
    deploy.write_metadata(path, data=object())


def test_any_changed_byte_is_found(path):
  with open(path, "rb") as file:
    content = file.read()
  rng = np.random.default_rng(0)
  for at in rng.integers(0, len(content), 200):
    changed = bytearray(content)
    changed[at] ^= 1 << rng.integers(8)
    with open(path, "wb") as file:
      file.write(changed)
    with pytest.raises(ValueError, match="a.tflite"):
      deploy.read_metadata(path)


def test_files_of_other_programs_have_no_metadata(written, tmp_path):
  model = written[0]
  path = tmp_path / "plain.tflite"
  path.write_bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())
  for function in (deploy.read_metadata, deploy.write_metadata):
    with pytest.raises(ValueError, match="plain.tflite has no metadata of tfkd: expected a file by tfkd.deploy.to_tf"):
      function(str(path))
  images = tf.data.Dataset.from_tensors((np.zeros((2, 32, 32, 3), np.float32), np.zeros(2)))
  assert deploy.evaluate(str(path), images)["images"] == 2  # Evaluation needs no metadata.
  with pytest.raises(ValueError, match="was not exported from"):
    deploy.evaluate(str(path), images, model)
  with pytest.raises(FileNotFoundError, match="no TFLite file at"):
    deploy.read_metadata(str(tmp_path / "none.tflite"))
