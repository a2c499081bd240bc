"""SVHN files, synthetic files in the same format, and errors for damaged files."""

import functools
import hashlib
import http.server
import socket
import threading

import numpy as np
import PIL
import pytest
from scipy.io import loadmat, savemat

from tfkd import data
from tfkd.data import download, house_numbers, svhn


@pytest.fixture
def folder(tmp_path):
  house_numbers.write(tmp_path, sizes={"train": 40, "test": 20})
  return tmp_path


def test_files_have_svhns_format_and_are_read_back(folder):
  content = loadmat(folder / "train_32x32.mat")
  assert content["X"].shape == (32, 32, 3, 40) and content["X"].dtype == np.uint8
  assert content["y"].shape == (40, 1) and set(content["y"].ravel()) <= set(range(1, 11))
  images, labels = data.load_arrays("svhn", "train", data_dir=str(folder))
  np.testing.assert_array_equal(images, content["X"].transpose(3, 0, 1, 2))
  np.testing.assert_array_equal(labels, content["y"].ravel() % 10)
  again, _ = data.load_arrays("house_numbers", "train", data_dir=str(folder))
  np.testing.assert_array_equal(images, again)


def test_drawing_is_deterministic_and_splits_differ():
  images, labels = house_numbers.draw(30, [0, 0])
  again, _ = house_numbers.draw(30, [0, 0])
  other, _ = house_numbers.draw(30, [0, 1])
  np.testing.assert_array_equal(images, again)
  assert (images != other).any(axis=(1, 2, 3)).all()
  assert images.dtype == np.uint8 and images.shape == (30, 32, 32, 3) and labels.max() <= 9
  assert images.std(axis=(1, 2, 3)).min() > 2  # No crop is blank.


@pytest.mark.skipif(PIL.__version__ != "13.0.0", reason="another Pillow may render glyphs otherwise")
def test_pixels_are_those_of_earlier_versions():
  for seed, digest in ((5, "bbe2fc2edd35dde8"), ([0, 0], "d03155c361bc728c")):
    images, labels = house_numbers.draw(30, seed)
    assert hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest().startswith(digest)


def test_every_digit_is_drawn():
  _, labels = house_numbers.draw(300, 1)
  assert set(labels) == set(range(10))


def test_existing_files_are_kept(folder):
  before = (folder / "train_32x32.mat").stat().st_mtime_ns
  house_numbers.write(folder)
  assert (folder / "train_32x32.mat").stat().st_mtime_ns == before


def _write(folder, **variables):
  path = folder / "train_32x32.mat"
  savemat(path, variables)
  return str(path)


GOOD_X, GOOD_Y = np.zeros((32, 32, 3, 4), np.uint8), np.array([[1], [2], [10], [9]], np.uint8)


@pytest.mark.parametrize(
  "variables, words",
  [
    ({"y": GOOD_Y}, "has no variable 'X'"),
    ({"X": GOOD_X}, "has no variable 'y'"),
    ({"X": GOOD_X[:16], "y": GOOD_Y}, r"X must be uint8 \[32, 32, 3, images\]; found uint8 \[16, 32, 3, 4\]"),
    ({"X": GOOD_X.astype(float), "y": GOOD_Y}, "found float64"),
    ({"X": GOOD_X, "y": GOOD_Y[:3]}, r"y must be numbers \[4, 1\].*found uint8 \[3, 1\]"),
    ({"X": GOOD_X, "y": np.full((2, 2), 1)}, r"found int64 \[2, 2\]"),
    ({"X": GOOD_X, "y": np.array([["a"], ["b"], ["c"], ["d"]])}, "y must be numbers"),
    ({"X": GOOD_X, "y": GOOD_Y - 1}, "labels must be 1..10.*found 0 at image 0"),
    ({"X": GOOD_X, "y": GOOD_Y + 1}, "found 11 at image 2"),
    ({"X": GOOD_X, "y": np.array([[1.0], [2.5], [3.0], [np.nan]])}, "found 2.5 at image 1"),
  ],
)
def test_wrong_content_raises_with_the_finding(tmp_path, variables, words):
  path = _write(tmp_path, **variables)
  with pytest.raises(ValueError, match=words) as error:
    svhn.read_mat(path)
  assert path in str(error.value)


@pytest.mark.parametrize("size", [0, 1, 100, 128, 200, 50_000])
def test_truncated_files_raise(folder, size):
  path = folder / "train_32x32.mat"
  path.write_bytes(path.read_bytes()[:size])
  with pytest.raises(
    ValueError, match=f"train_32x32.mat \\({size} bytes\\) (is truncated or not a MATLAB file|has no variable)"
  ):
    svhn.read_mat(str(path))


def test_files_of_other_formats_raise(tmp_path):
  path = tmp_path / "train_32x32.mat"
  path.write_bytes(b"<html>404 not found</html>" * 50)
  with pytest.raises(ValueError, match="not a MATLAB file"):
    svhn.read_mat(str(path))


def test_missing_files_raise(tmp_path):
  with pytest.raises(FileNotFoundError, match=f"no extra_32x32.mat in {tmp_path}"):
    data.load_arrays("svhn", "extra", data_dir=str(tmp_path))


@pytest.fixture
def server(folder, tmp_path_factory, monkeypatch):
  """The data set's address, served from this machine, and an empty home for Keras."""

  class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
      pass

  handler = functools.partial(Quiet, directory=str(folder))
  served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
  threading.Thread(target=served.serve_forever, daemon=True).start()
  home = tmp_path_factory.mktemp("home")
  monkeypatch.setenv("KERAS_HOME", str(home))
  monkeypatch.setattr(svhn, "ADDRESS", f"http://127.0.0.1:{served.server_port}/")
  yield home
  served.shutdown()


def test_a_download_with_the_right_checksum_is_read(folder, server, monkeypatch):
  digest = hashlib.md5((folder / "test_32x32.mat").read_bytes()).hexdigest()
  monkeypatch.setitem(svhn.MD5, "test", digest)
  _, labels = data.load_arrays("svhn", "test")
  np.testing.assert_array_equal(labels, data.load_arrays("svhn", "test", data_dir=str(folder))[1])
  (folder / "test_32x32.mat").unlink()
  data.load_arrays("svhn", "test")  # From the first download.


def test_a_download_with_a_wrong_checksum_is_refused(server):
  with pytest.raises(ValueError, match="does not have the published MD5 eb5a983be6a315427106f1b164d9cef3"):
    data.load_arrays("svhn", "test")


def test_failed_downloads_name_the_alternatives(server):
  with pytest.raises(OSError, match="extra_32x32.mat could not be downloaded.*data_dir"):
    data.load_arrays("svhn", "extra")


def test_silent_servers_raise_after_the_timeout(server, monkeypatch):
  monkeypatch.setattr(download, "_SECONDS", 0.3)
  with socket.create_server(("127.0.0.1", 0)) as silent:
    monkeypatch.setattr(svhn, "ADDRESS", f"http://127.0.0.1:{silent.getsockname()[1]}/")
    with pytest.raises(OSError, match="could not be downloaded.*timed out"):
      data.load_arrays("svhn", "extra")
  assert socket.getdefaulttimeout() is None


def test_published_checksums():
  assert svhn.MD5 == {
    "train": "e26dedcc434d2e4c54c9b2d4a06d8373",
    "test": "eb5a983be6a315427106f1b164d9cef3",
    "extra": "a93ce644f1a588dc4d68dda5feec44a7",
  }
