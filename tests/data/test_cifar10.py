"""CIFAR-10 from folders and archives."""

import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tfkd import data
from tfkd.data import cifar10

PHOTOGRAPHS = os.environ.get("TFKD_CIFAR10", "")  # Archive or folder of the real photographs.


def _jpeg(colour, size=(32, 32), mode="RGB"):
  buffer = io.BytesIO()
  Image.new("RGB", size, (colour, colour, colour)).convert(mode).save(buffer, "JPEG", quality=95)
  return buffer.getvalue()


@pytest.fixture
def folder(tmp_path):
  """Twenty images a class; the class and number show in the grey level."""
  root = tmp_path / "cifar"
  for i, name in enumerate(cifar10.CLASSES):
    (root / "train" / name).mkdir(parents=True)
    for j in range(20):
      (root / "train" / name / f"{j:04}.jpg").write_bytes(_jpeg(20 * i + j))
  return root


def _archive(folder, path, mode="w:xz"):
  with tarfile.open(path, mode) as archive:
    archive.add(folder, arcname=".")
  return path


def test_directory_and_archive_give_the_same_images(folder, tmp_path):
  archive = _archive(folder, tmp_path / "cifar.tar.xz")
  for split, count in (("train", 180), ("test", 20)):
    images, labels = data.load_arrays("cifar10", split, data_dir=str(folder))
    other_images, other_labels = data.load_arrays("cifar10", split, data_dir=str(archive))
    np.testing.assert_array_equal(images, other_images)
    np.testing.assert_array_equal(labels, other_labels)
    assert images.shape == (count, 32, 32, 3) and (np.bincount(labels) == count // 10).all()
    np.testing.assert_array_equal(images[:, 0, 0, 0] // 20, labels)


def test_split_is_stratified_seeded_and_disjoint(folder):
  train, _ = data.load_arrays("cifar10", "train", data_dir=str(folder))
  test, _ = data.load_arrays("cifar10", "test", data_dir=str(folder))
  levels = [set(split[:, 0, 0, 0].tolist()) for split in (train, test)]
  assert not levels[0] & levels[1] and len(levels[0] | levels[1]) == 200


def test_a_test_directory_is_used_if_present(folder):
  (folder / "test" / "cat").mkdir(parents=True)
  (folder / "test" / "cat" / "0.jpg").write_bytes(_jpeg(7, mode="L"))
  images, labels = data.load_arrays("cifar10", "test", data_dir=str(folder))
  assert labels.tolist() == [3] and images.shape == (1, 32, 32, 3)
  assert len(data.load_arrays("cifar10", "train", data_dir=str(folder))[1]) == 200


def test_damaged_images_raise_with_their_path(folder):
  path = folder / "train" / "cat" / "0003.jpg"
  path.write_bytes(path.read_bytes()[:100])
  with pytest.raises(ValueError, match="cat/0003.jpg is not a readable image"):
    data.load_arrays("cifar10", "train", data_dir=str(folder))
  path.write_bytes(_jpeg(1, (16, 32)))
  with pytest.raises(ValueError, match="cat/0003.jpg is 16x32 pixels"):
    data.load_arrays("cifar10", "train", data_dir=str(folder))


def test_damaged_archives_raise_with_their_path(folder, tmp_path):
  archive = _archive(folder, tmp_path / "cifar.tar.xz")
  archive.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
  with pytest.raises(ValueError, match="cifar.tar.xz is truncated, or not a tar archive"):
    data.load_arrays("cifar10", "train", data_dir=str(archive))


@pytest.mark.parametrize("compression", ["xz", "gz"])
def test_truncated_archives_raise_at_every_length(tmp_path, compression):
  path = tmp_path / "cifar.tar"
  rng = np.random.default_rng(0)
  with tarfile.open(path, f"w:{compression}") as archive:
    for i in range(30):
      member = tarfile.TarInfo(f"train/cat/{i}.jpg")
      member.size = 700
      archive.addfile(member, io.BytesIO(rng.bytes(700)))
  whole = path.read_bytes()
  for cut in range(0, len(whole), 37):
    path.write_bytes(whole[:cut])
    try:
      assert len(list(data.read_files(str(path), "images"))) == 30, cut
    except ValueError as error:
      assert "is truncated, or not a tar archive" in str(error)


@pytest.mark.parametrize("name", ["../../escaped/train/cat/0.jpg", "/absolute/train/cat/0.jpg"])
def test_absolute_and_parent_paths_in_an_archive_raise(tmp_path, name):
  path = tmp_path / "evil.tar"
  with tarfile.open(path, "w") as archive:
    content = _jpeg(1)
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))
  with pytest.raises(ValueError, match="is a link, or outside of the archive"):
    data.load_arrays("cifar10", "train", data_dir=str(path))
  assert [p.name for p in tmp_path.iterdir()] == ["evil.tar"] and not Path("/absolute").exists()


def test_missing_and_unknown_directories_raise(tmp_path):
  with pytest.raises(FileNotFoundError, match="no directory or archive"):
    data.load_arrays("cifar10", "train", data_dir=str(tmp_path / "none"))
  with pytest.raises(ValueError, match="has no train/<class>"):
    data.load_arrays("cifar10", "train", data_dir=str(tmp_path))
  (tmp_path / "train" / "llama").mkdir(parents=True)
  (tmp_path / "train" / "llama" / "0.jpg").write_bytes(_jpeg(1))
  with pytest.raises(ValueError, match="unknown class directory 'llama'; expected airplane"):
    data.load_arrays("cifar10", "train", data_dir=str(tmp_path))


@pytest.mark.skipif(not os.path.exists(PHOTOGRAPHS), reason="TFKD_CIFAR10 does not name the photographs")
def test_the_real_photographs():
  images, labels = data.load_arrays("cifar10", "test", data_dir=PHOTOGRAPHS)
  assert images.shape == (5000, 32, 32, 3) and (np.bincount(labels) == 500).all()
  assert 100 < images.mean() < 140 and images.std() > 40


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_an_archive_with_links_is_refused(tmp_path, kind):
  path = tmp_path / "evil.tar"
  with tarfile.open(path, "w") as archive:
    member = tarfile.TarInfo("train/cat/0.jpg")
    member.type, member.linkname = kind, "/etc/passwd"
    archive.addfile(member)
  with pytest.raises(ValueError, match="member 'train/cat/0.jpg' is a link"):
    data.load_arrays("cifar10", "train", data_dir=str(path))


def test_archives_that_expand_a_thousandfold_raise_before_expansion(tmp_path):
  path = tmp_path / "bomb.tar.xz"
  with tarfile.open(path, "w:xz") as archive:
    member = tarfile.TarInfo("train/cat/0.jpg")
    member.size = 100_000_000
    archive.addfile(member, io.BytesIO(bytes(member.size)))
  with pytest.raises(ValueError, match="member 'train/cat/0.jpg' would expand it to more than 1000 times its size"):
    data.load_arrays("cifar10", "train", data_dir=str(path))
