"""Food-11 from a directory of images of many sizes, modes and formats."""

import io
import os

import numpy as np
import pytest
from PIL import Image

from tfkd import data
from tfkd.data import food11, images

RNG = np.random.default_rng(0)


def _save(path, pixels, mode="RGB", **options):
  Image.fromarray(pixels).convert(mode).save(path, **options)


@pytest.fixture
def folder(tmp_path):
  """Seven images a split, of odd sizes and modes, grey level 20 * label + 10."""
  for split in food11.FOLDERS.values():
    (tmp_path / split).mkdir()
    sizes = [(40, 61), (120, 33), (500, 700), (32, 32), (31, 200), (64, 48), (48, 64)]
    modes = ["RGB", "L", "RGB", "CMYK", "RGB", "RGBA", "P"]
    for i, (size, mode) in enumerate(zip(sizes, modes, strict=True)):
      name = f"{i:04}" if split == "evaluation" else f"{i}_{i:04}"
      suffix = "png" if mode in ("RGBA", "P") else "jpg"
      _save(tmp_path / split / f"{name}.{suffix}", np.full((*size, 3), 20 * i + 10, np.uint8), mode)
  return tmp_path


def test_images_of_all_sizes_and_modes_become_rgb_squares(folder):
  for split in ("train", "test", "evaluation"):
    images, labels = food11.load_arrays(split, str(folder), side=32)
    assert images.shape == (7, 32, 32, 3) and images.dtype == np.uint8
    np.testing.assert_array_equal(labels, -1 if split == "evaluation" else np.arange(7))
    expected = np.broadcast_to((20 * np.arange(7) + 10)[:, None, None, None], images.shape)
    np.testing.assert_allclose(images, expected, atol=10)  # The palette is dithered.


def test_batches_are_normalized_crops_of_image_size(folder):
  ((images, labels),) = data.load("food11", "train", data_dir=str(folder), batch_size=7, image_size=28)
  assert images.shape == (7, 28, 28, 3)
  np.testing.assert_array_equal(labels, np.arange(7))
  grey = (20 * np.arange(7) + 10)[:, None] / 255
  expected = (grey - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
  np.testing.assert_allclose(images.numpy().mean(axis=(1, 2)), expected, atol=0.1)
  ((images, _),) = data.load("food11", "train", data_dir=str(folder), batch_size=7, image_size=28, augment=True)
  assert images.shape == (7, 28, 28, 3) and np.isfinite(images).all()
  assert data.info("food11").image_shape == (224, 224, 3)


def test_data_sets_without_options_refuse_options():
  for options in ({"image_size": 48}, {"on_bad_image": "skip"}):
    with pytest.raises(ValueError, match="cifar10 has no option (image_size|on_bad_image): it has none"):
      data.info("cifar10", **options)


def test_images_are_cropped_at_the_center_and_turned_upright(folder):
  # Left half dark, right half light; EXIF says that the camera was rotated.
  pixels = np.repeat(np.repeat([[0, 255]], 40, 0), 40, 1).astype(np.uint8)[..., None].repeat(3, 2)
  exif = Image.Exif()
  exif[0x0112] = 6  # To be turned by 90 degrees clockwise: left becomes top.
  _save(folder / "training" / "7_turned.jpg", pixels, exif=exif)
  images, _ = food11.load_arrays("train", str(folder), side=16)
  turned = images[-1, :, :, 0].astype(int)
  assert (turned[:6] < 20).all() and (turned[10:] > 235).all()


def test_decoded_images_are_reused_until_a_file_changes(folder, monkeypatch):
  first, _ = food11.load_arrays("train", str(folder), side=16)
  calls = []
  original = food11._decode
  monkeypatch.setattr(food11, "_decode", lambda *args: calls.append(args) or original(*args))
  again, _ = food11.load_arrays("train", str(folder), side=16)
  np.testing.assert_array_equal(first, again)
  assert not calls
  _save(folder / "training" / "0_0000.jpg", np.full((30, 30, 3), 200, np.uint8))
  changed, _ = food11.load_arrays("train", str(folder), side=16)
  assert len(calls) == 7 and changed[0].mean() == pytest.approx(200, abs=4)
  food11.load_arrays("train", str(folder), side=24)
  assert len(calls) == 14


def test_partially_written_arrays_are_not_used(folder):
  food11.load_arrays("train", str(folder), side=16)
  (manifest,) = (folder / ".tfkd").glob("*.json")
  manifest.unlink()
  (array,) = (folder / ".tfkd").glob("*.npy")
  array.write_bytes(b"half")
  images, _ = food11.load_arrays("train", str(folder), side=16)
  assert images.shape == (7, 16, 16, 3)


@pytest.fixture
def damaged(folder):
  for split, prefix in (("training", "9_"), ("evaluation", "")):
    buffer = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(buffer, "JPEG")
    (folder / split / f"{prefix}truncated.jpg").write_bytes(buffer.getvalue()[:900])
    (folder / split / f"{prefix}empty.jpg").write_bytes(b"")
    (folder / split / f"{prefix}text.jpg").write_bytes(b"no photograph")
  return folder


def test_unreadable_images_raise_with_names_and_count(damaged):
  with pytest.raises(
    ValueError,
    match="3 of 10 images in .*training are empty, damaged or larger than 100 megapixels: 9_empty.jpg, 9_text.jpg, 9",
  ):
    food11.load_arrays("train", str(damaged), side=16)


def test_on_bad_image_skip_omits_unreadable_images(damaged):
  images, labels = food11.load_arrays("train", str(damaged), side=16, on_bad_image="skip")
  np.testing.assert_array_equal(labels, np.arange(7))
  assert len(images) == 7
  images, labels = food11.load_arrays("evaluation", str(damaged), side=16, on_bad_image="skip")
  assert len(images) == len(labels) == 10 and not images[7:].any()  # A row for every file.


def test_directories_without_food11_raise(folder):
  with pytest.raises(FileNotFoundError, match="as data_dir"):
    food11.load_arrays("train")
  with pytest.raises(FileNotFoundError, match="no directory .*nowhere"):
    food11.load_arrays("train", str(folder / "nowhere"))
  _save(folder / "training" / "11_0.jpg", np.zeros((8, 8, 3), np.uint8))
  with pytest.raises(ValueError, match=r"11_0.jpg: expected <label>_<id>.jpg with a label of 0 to 10"):
    food11.load_arrays("train", str(folder))
  for name in os.listdir(folder / "validation"):
    os.remove(folder / "validation" / name)
  with pytest.raises(ValueError, match="has no .jpg"):
    food11.load_arrays("test", str(folder))
  with pytest.raises(ValueError, match="must be one of error, skip"):
    food11.load_arrays("test", str(folder), on_bad_image="ignore")


def test_read_only_directories_can_be_read(folder, tmp_path, monkeypatch):
  monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
  monkeypatch.setattr(food11.os, "access", lambda *_: False)
  images, _ = food11.load_arrays("train", str(folder), side=16)
  assert len(images) == 7 and list((tmp_path / "keras" / "datasets" / "food11").glob("training-16-*.npy"))


def test_eps_files_and_huge_images_count_as_unreadable(folder, monkeypatch):
  (folder / "training" / "3_eps.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n")
  monkeypatch.setattr(images, "_MAX_PIXELS", 900_000)
  _save(folder / "training" / "3_large.jpg", np.zeros((1000, 1000, 3), np.uint8))
  with pytest.raises(ValueError, match="images in .*: 3_eps.jpg, 3_large.jpg"):
    food11.load_arrays("train", str(folder), side=16)
