"""Recordings of spoken digits, and drawn sequences of tones of the same form."""

import os
import re

import numpy as np

from tfkd.data import decode_sound, read_files

SAMPLE_RATE = 8000
SAMPLES = 8000
"""Length of all waveforms: longer recordings are cut to their first second, shorter ones are followed by silence."""
NUM_CLASSES = 10

_NAME = re.compile(r"(\d)_([A-Za-z]\w*)_(\d+)\.wav", re.IGNORECASE)
_TEST_INDICES = 5
# Steps of the three tones of each class, relative to the lowest.
_MELODIES = (
  (0, 1, 2),
  (2, 1, 0),
  (0, 2, 1),
  (1, 2, 0),
  (1, 0, 2),
  (2, 0, 1),
  (0, 1, 0),
  (1, 0, 1),
  (0, 0, 1),
  (1, 0, 0),
)
_STEP = 1.5  # Ratio of the frequencies of neighbouring steps.

Examples = tuple[np.ndarray, np.ndarray]
"""Waveforms float32 [n, SAMPLES] and digits int32 [n]."""


def read(data_dir: str | os.PathLike) -> tuple[Examples, Examples]:
  """Reads the Free Spoken Digit Dataset.

  Args:
    data_dir: directory or tar archive (`.tar`, `.tar.gz`, `.tar.xz`) of `<digit>_<speaker>_<index>.wav`, 8 kHz, one
      channel, in any directories; files with other endings are ignored.

  Returns:
    Training and test examples in the order of the names. Indices 0 to 4 are the test set, the data set's own split.

  Raises:
    FileNotFoundError: data_dir does not exist.
    ValueError: a file has another name, is damaged, or has another rate or more channels; a digit is missing; or the
      archive is damaged or is none.
  """
  form = "<digit>_<speaker>_<index>.wav"
  if not os.path.exists(data_dir):
    raise FileNotFoundError(f"no directory or archive at {data_dir}; expected {form} in it.")
  found = {}
  for path, content in read_files(data_dir, "WAV files"):
    name = os.path.basename(path)
    if not name.lower().endswith(".wav"):
      continue
    match = _NAME.fullmatch(name)
    if match is None:
      raise ValueError(f"{data_dir}: {path} is no name of a recording; expected {form}, such as 7_s0_12.wav.")
    digit, speaker, index = int(match[1]), match[2], int(match[3])
    if (digit, speaker, index) in found:
      raise ValueError(f"{data_dir}: {path} is the second recording {index} of digit {digit} and speaker {speaker}.")
    found[digit, speaker, index] = _fitted(decode_sound(content, f"{data_dir}: {path}", SAMPLE_RATE))
  return _split(found, data_dir, lambda key: key[2] >= _TEST_INDICES, "5"), _split(
    found, data_dir, lambda key: key[2] < _TEST_INDICES, "0 to 4"
  )


def _split(found, data_dir, belongs, indices):
  keys = sorted(key for key in found if belongs(key))
  missing = sorted(set(range(NUM_CLASSES)) - {key[0] for key in keys})
  if missing:
    raise ValueError(
      f"{data_dir} has no recordings of {', '.join(map(str, missing))} with an index of {indices}; expected "
      "<digit>_<speaker>_<index>.wav of every digit, indices 0 to 4 for the test set and from 5 for training."
    )
  return np.stack([found[key] for key in keys]), np.array([key[0] for key in keys], np.int32)


def _fitted(waveform):
  return np.pad(waveform[:SAMPLES], (0, max(0, SAMPLES - len(waveform))))


def draw(count: int, seed: int) -> Examples:
  """Draws melodies of three tones in noise, deterministic in `seed`.

  The class is the melody; pitch, length, beginning, glide between tones, strength of the overtones, loudness and the
  signal-to-noise ratio (0 to 15 dB) are random.

  Args:
    count: number of waveforms; classes follow each other in turn.
    seed: of the random numbers.
  """
  rng = np.random.default_rng(seed)
  labels = np.arange(count, dtype=np.int32) % NUM_CLASSES
  return np.stack([_melody(rng, _MELODIES[label]) for label in labels]), labels


def _melody(rng, steps):
  length = int(rng.uniform(0.3, 0.6) * SAMPLE_RATE)
  begin = rng.integers(SAMPLES - length)
  time = np.linspace(0, 3, length, endpoint=False)
  glide = rng.uniform(0.1, 0.5)
  # Each tone is held, then glides to the next one.
  corners = np.array([0, 1 - glide / 2, 1 + glide / 2, 2 - glide / 2, 2 + glide / 2, 3])
  frequency = rng.uniform(200, 600) * _STEP ** np.interp(time, corners, np.repeat(steps, 2))
  phase = 2 * np.pi * (np.cumsum(frequency) / SAMPLE_RATE + rng.uniform())
  tone = sum(rng.uniform(0.2, 1) / k * np.sin(k * phase) for k in (1, 2, 3))
  tone *= np.minimum(1, np.minimum(time, 3 - time) * 10)
  noise = rng.normal(size=SAMPLES) * np.sqrt(np.mean(tone**2)) * 10 ** (-rng.uniform(0, 15) / 20)
  noise[begin : begin + length] += tone
  return (noise * rng.uniform(0.05, 0.9) / np.abs(noise).max()).astype(np.float32)
