"""Log-mel spectrograms and the reader of WAV files."""

import io

import numpy as np
import pytest
import tensorflow as tf
from scipy.io import wavfile

from tfkd.data import decode_sound, log_mel, read_sound


def _wav(values, rate=8000):
  buffer = io.BytesIO()
  wavfile.write(buffer, rate, values)
  return buffer.getvalue()


def _reference(waveform, rate, window, hop, size, bands, lowest, highest, floor):
  """The definition in float64: a sum over samples, and triangles between corners equally spaced in mel."""
  n, frequency = np.arange(window), np.arange(size // 2 + 1)
  hann = 0.5 - 0.5 * np.cos(2 * np.pi * n / window)
  mels = 1127 * np.log(1 + frequency * rate / size / 700)
  corners = np.linspace(*(1127 * np.log(1 + np.array([lowest, highest]) / 700)), bands + 2)
  found = np.zeros((1 + (len(waveform) - window) // hop, bands))
  for t in range(len(found)):
    frame = hann * waveform[t * hop : t * hop + window]
    power = np.abs(np.exp(-2j * np.pi * np.outer(frequency, n) / size) @ frame) ** 2
    for m in range(bands):
      left, middle, right = corners[m : m + 3]
      triangle = np.minimum((mels - left) / (middle - left), (right - mels) / (right - middle)).clip(0)
      triangle[0] = 0  # The mean of the waveform belongs to no band.
      found[t, m] = np.log(max(triangle @ power, floor))
  return found


@pytest.mark.parametrize("rate, window, hop, bands, lowest, highest", [
  (8000, 256, 160, 32, 60.0, None), (16000, 400, 160, 40, 20.0, 7600.0), (8000, 200, 300, 1, 0.0, 3000.0),
])  # fmt: skip
def test_spectrograms_are_those_of_the_definition(rate, window, hop, bands, lowest, highest):
  waveforms = np.random.default_rng(0).uniform(-1, 1, (2, 3, 1500)).astype(np.float32)
  waveforms[1, 1, 300:] = 0
  options = {"window": window, "hop": hop, "bands": bands, "lowest": lowest, "highest": highest, "floor": 1e-3}
  size = {256: 256, 400: 512, 200: 256}[window]
  found = log_mel(waveforms, rate, **options).numpy()
  assert found.shape == (2, 3, 1 + (1500 - window) // hop, bands) and found.dtype == np.float32
  for index in np.ndindex(2, 3):
    expected = _reference(
      waveforms[index].astype(np.float64), rate, window, hop, size, bands, lowest, highest or rate / 2, 1e-3
    )
    np.testing.assert_allclose(found[index], expected, atol=2e-4)
  np.testing.assert_allclose(found[1, 1, -1], np.log(1e-3), rtol=1e-6)  # Silence.
  traced = tf.function(lambda x: log_mel(x, rate, **options), input_signature=[tf.TensorSpec([None, 1500])])
  np.testing.assert_allclose(traced(waveforms[0]), found[0], atol=2e-4)


def test_the_band_of_a_tone_is_the_loudest():
  time = np.arange(8000) / 8000
  corners = 700 * np.expm1(np.linspace(*(np.log1p(np.array([60, 4000]) / 700)), 34))
  for band in (5, 17, 30):
    tone = np.sin(2 * np.pi * corners[band + 1] * time)
    assert (log_mel(tone, 8000).numpy().argmax(-1) == band).all()


@pytest.mark.parametrize("options, samples, dtype, expected", [
  ({}, 255, np.float32, r"\(255,\); expected \[..., samples\], at least the window's 256"),
  ({}, 300, np.int16, "waveforms are int16; expected floats"),
  ({"hop": 0}, 300, np.float32, "window, hop and bands must be at least 1"),
  ({"floor": 0.0}, 300, np.float32, "floor positive"),
  ({"highest": 4001.0}, 300, np.float32, "between 0 and 4000.0 Hz"),
  ({"lowest": 5000.0}, 300, np.float32, "between 0 and 4000.0 Hz"),
  ({"bands": 200}, 300, np.float32, "200 bands are too many"),
])  # fmt: skip
def test_parameters_that_cannot_be_are_refused(options, samples, dtype, expected):
  with pytest.raises(ValueError, match=expected):
    log_mel(np.zeros(samples, dtype), 8000, **options)


def test_damaged_and_other_sounds_are_refused_by_name(tmp_path):
  wave = np.arange(-100, 100, dtype=np.int16)
  whole = _wav(wave)
  np.testing.assert_array_equal(decode_sound(whole, "a.wav", 8000), wave / np.float32(2**15))
  for content, expected in {
    b"": "a.wav is not a WAV file", b"none of the kind": "a.wav is not a WAV file",
    whole[:20]: "a.wav is not a WAV file", whole[:-100]: "a.wav is truncated", whole[:-1]: "a.wav is",
    _wav(wave, 16000): "a.wav has 16000 samples per second; expected 8000",
    _wav(np.stack([wave, wave], 1)): "a.wav has 2 channels; expected one",
    _wav(wave[:0]): "a.wav has no samples",
    _wav(np.array([0, np.nan], np.float32)): "a.wav has samples that are not finite",
  }.items():  # fmt: skip
    with pytest.raises(ValueError, match=expected):
      decode_sound(content, "a.wav", 8000)
  (tmp_path / "b.wav").write_bytes(whole)
  np.testing.assert_array_equal(read_sound(tmp_path / "b.wav", 250, 8000)[200:], np.zeros(50))
  with pytest.raises(ValueError, match="b.wav has 200 samples; the model takes 199"):
    read_sound(tmp_path / "b.wav", 199, 8000)
