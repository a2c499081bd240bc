"""Spoken digits: recordings, drawn melodies, networks, and one tiny run."""

import io
import tarfile

import numpy as np
import pytest
from scipy.io import wavfile

from experiments.tasks import recordings, spoken_digits
from tests.experiments import scripts


def _wav(values, rate=8000):
  buffer = io.BytesIO()
  wavfile.write(buffer, rate, values)
  return buffer.getvalue()


@pytest.fixture
def directory(tmp_path):
  """Two speakers, one recording of each digit for each split; the first sample tells digit, speaker and index."""
  root = tmp_path / "digits"
  (root / "fsdd").mkdir(parents=True)
  (root / "fsdd" / "README.md").write_text("not a sound")
  for digit in range(10):
    for speaker in range(2):
      for index in (4, 5):
        # Some are longer than a second.
        wave = np.full(9000 if digit == 3 else 900, 100 * digit + 10 * speaker + index, np.int16)
        (root / "fsdd" / f"{digit}_s{speaker}_{index:02}.wav").write_bytes(_wav(wave))
  return root


def _refuses(path, expected):
  with pytest.raises((ValueError, FileNotFoundError), match=expected):
    recordings.read(path)


def test_directory_and_archive_give_the_same_recordings(directory, tmp_path):
  with tarfile.open(tmp_path / "digits.tar.xz", "w:xz") as archive:
    archive.add(directory, arcname=".")
  for index, split, other in zip(
    (5, 4), recordings.read(directory), recordings.read(tmp_path / "digits.tar.xz"), strict=True
  ):
    waveforms, labels = split
    np.testing.assert_array_equal(waveforms, other[0])
    np.testing.assert_array_equal(labels, other[1])
    assert waveforms.shape == (20, 8000) and waveforms.dtype == np.float32
    expected = [100 * digit + 10 * speaker + index for digit in range(10) for speaker in range(2)]
    np.testing.assert_array_equal(waveforms[:, 0] * 2**15, expected)
    np.testing.assert_array_equal(labels, np.repeat(np.arange(10), 2))
    np.testing.assert_array_equal((waveforms != 0).sum(1), np.where(labels == 3, 8000, 900))


def test_other_files_are_refused_by_name(directory, tmp_path):
  sounds = directory / "fsdd"
  for name, content, expected in (
    (
      "seven.wav",
      _wav(np.ones(9, np.int16)),
      r"seven.wav is no name of a recording; expected <digit>_<speaker>_<index>",
    ),
    ("7_s0_5.wav", _wav(np.ones(9, np.int16)), "is the second recording 5 of digit 7 and speaker s0"),
    ("7_s0_06.wav", b"RIFF", "7_s0_06.wav is not a WAV file"),
    ("7_s0_06.wav", _wav(np.ones(900, np.int16))[:-200], "7_s0_06.wav is truncated"),
    ("7_s0_06.wav", _wav(np.ones(9, np.int16), 16000), "7_s0_06.wav has 16000 samples per second; expected 8000"),
    ("7_s0_06.wav", _wav(np.ones((9, 2), np.int16)), "7_s0_06.wav has 2 channels"),
  ):
    (sounds / name).write_bytes(content)
    _refuses(directory, expected)
    (sounds / name).unlink()
  for speaker in range(2):
    (sounds / f"8_s{speaker}_04.wav").unlink()
  _refuses(directory, "has no recordings of 8 with an index of 0 to 4")
  (tmp_path / "empty").mkdir()
  _refuses(tmp_path / "empty", "empty has no recordings of 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 with an index of")
  (tmp_path / "text.tar").write_text("no archive")
  _refuses(tmp_path / "text.tar", "text.tar is truncated, or not a tar archive of WAV files")
  _refuses(tmp_path / "missing", "no directory or archive at .*missing; expected <digit>_<speaker>_<index>.wav")


def test_melodies_are_deterministic_and_differ_from_each_other():
  waveforms, labels = recordings.draw(40, 3)
  np.testing.assert_array_equal(waveforms, recordings.draw(40, 3)[0])
  assert waveforms.shape == (40, recordings.SAMPLES) and waveforms.dtype == np.float32
  assert (np.bincount(labels) == 4).all()
  loudest = np.abs(waveforms).max(1)
  assert loudest.max() < 1 and loudest.min() > 0.04 and loudest.std() > 0.1
  assert len(np.unique(waveforms, axis=0)) == 40
  assert not np.isin(waveforms[:, 0], recordings.draw(40, 4)[0][:, 0]).any()
  # No melody is another one in another pitch.
  assert len({tuple(step - min(melody) for step in melody) for melody in recordings._MELODIES}) == 10


def test_the_student_is_a_small_part_of_the_teacher():
  student, teacher = (network(10, (49, 32, 1)) for network in (spoken_digits.student, spoken_digits.teacher))
  # First convolution, separable blocks, last layer; four numbers for each normalized channel.
  for model, filters, blocks in ((student, 16, 2), (teacher, 64, 4)):
    block = 9 * filters + filters**2 + 8 * filters
    assert model.count_params() == 44 * filters + blocks * block + 10 * filters + 10
    assert model.output_shape == (None, 10) and model.get_layer("features").output.shape[1:3] == (13, 8)


def test_damaged_data_end_the_script_with_one_sentence(directory, tmp_path):
  (directory / "fsdd" / "7_s0_06.wav").write_bytes(b"RIFF")
  ended = scripts.run_briefly("tasks.spoken_digits", tmp_path, "--preset=quick", f"--data_dir={directory}")
  assert ended.returncode and "7_s0_06.wav is not a WAV file" in ended.stderr and "Traceback" not in ended.stderr
