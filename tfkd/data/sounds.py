"""Reads WAV files, and computes their log-mel spectrograms."""

import io
import os
import warnings

import numpy as np
import tensorflow as tf


def read_sound(path: str | os.PathLike, samples: int, sample_rate: int) -> np.ndarray:
  """Reads a WAV file of one channel.

  Args:
    path: WAV file of 8 to 32 bits, or of floats.
    samples: number of samples that the model takes; shorter sounds are followed by silence.
    sample_rate: expected samples per second.

  Returns:
    float32 [samples] in [-1, 1].

  Raises:
    FileNotFoundError: there is no file at `path`.
    ValueError: the file is no WAV file, or has another rate, other channels or too many samples.
  """
  if not os.path.isfile(path):
    raise FileNotFoundError(f"no WAV file at {path}.")
  with open(path, "rb") as file:
    values = decode_sound(file.read(), f"{path}", sample_rate)
  if len(values) > samples:
    raise ValueError(f"{path} has {len(values)} samples; the model takes {samples}: cut it.")
  return np.pad(values, (0, samples - len(values)))


def decode_sound(content: bytes, name: str, sample_rate: int) -> np.ndarray:
  """Decodes the content of a WAV file of one channel.

  Args:
    content: of a WAV file of 8 to 32 bits, or of floats.
    name: of the file, for messages.
    sample_rate: expected samples per second.

  Returns:
    float32 [samples] in [-1, 1].

  Raises:
    ValueError: the content is no WAV file, is truncated, holds no samples or some that are not finite, or has another
      rate or other channels.
  """
  from scipy.io import wavfile

  try:
    with warnings.catch_warnings():
      warnings.simplefilter("ignore", wavfile.WavFileWarning)  # Of chunks that hold no samples.
      warnings.filterwarnings("error", "Reached EOF", wavfile.WavFileWarning)
      rate, values = wavfile.read(io.BytesIO(content))
  except Exception as error:  # scipy raises errors of many types for damaged content.
    truncated = isinstance(error, wavfile.WavFileWarning)
    raise ValueError(
      f"{name} {'is truncated' if truncated else 'is not a WAV file'} ({type(error).__name__}: {error}); expected a "
      f"WAV file of one channel at {sample_rate} Hz."
    ) from error
  if values.ndim != 1:
    raise ValueError(f"{name} has {values.shape[1]} channels; expected one: mix them.")
  if rate != sample_rate:
    raise ValueError(f"{name} has {rate} samples per second; expected {sample_rate}: resample it.")
  if not len(values):
    raise ValueError(f"{name} has no samples; expected at least one.")
  if values.dtype == np.uint8:
    values = (values.astype(np.float32) - 128) / 128
  elif np.issubdtype(values.dtype, np.integer):
    values = values / (np.iinfo(values.dtype).max + 1)
  if not np.isfinite(values).all():
    raise ValueError(f"{name} has samples that are not finite; expected numbers in [-1, 1].")
  return values.astype(np.float32)


def log_mel(
  waveforms: tf.Tensor | np.ndarray,
  sample_rate: int,
  *,
  window: int = 256,
  hop: int = 160,
  bands: int = 32,
  lowest: float = 60.0,
  highest: float | None = None,
  floor: float = 1e-6,
) -> tf.Tensor:
  """Computes log-mel spectrograms.

    power[t, f] = |sum_n hann[n] x[t hop + n] exp(-2 pi i f n / size)|^2
    result[t, m] = log(max(sum_f mel[f, m] power[t, f], floor))

  `hann` is periodic, `size` is the smallest power of two that is not below `window`, and `mel` are triangles of height
  one whose corners are equally spaced on the scale 1127 log(1 + Hz / 700) (HTK); they are computed in mel. Frames start
  inside of the waveform and end there: nothing is padded. It runs inside of a model, too.

  Args:
    waveforms: float [..., samples], in [-1, 1].
    sample_rate: samples per second.
    window: length of a frame, in samples.
    hop: distance of the frames, in samples.
    bands: number of mel bands.
    lowest, highest: first and last corner of the bands in Hz; None is half of the sample rate.
    floor: least power, which silence has.

  Returns:
    float32 [..., 1 + (samples - window) // hop, bands].

  Raises:
    ValueError: the waveforms are no floats or shorter than a window, or a parameter is out of range.
  """
  highest = sample_rate / 2 if highest is None else highest
  waveforms = tf.convert_to_tensor(waveforms)
  if not waveforms.dtype.is_floating:
    raise ValueError(
      f"waveforms are {waveforms.dtype.name}; expected floats in [-1, 1]: divide integers by their range."
    )
  if min(window, hop, bands) < 1 or not floor > 0:
    raise ValueError(
      f"window, hop and bands must be at least 1 and floor positive; got {window}, {hop}, {bands}, {floor}."
    )
  if not 0 <= lowest < highest <= sample_rate / 2:
    raise ValueError(
      f"lowest and highest must be in order between 0 and {sample_rate / 2} Hz, half of the sample rate; got {lowest} "
      f"and {highest}."
    )
  if waveforms.shape.rank == 0 or (waveforms.shape[-1] is not None and waveforms.shape[-1] < window):
    raise ValueError(
      f"waveforms have shape {waveforms.shape}; expected [..., samples], at least the window's {window}."
    )
  size = 1 << (window - 1).bit_length()
  spectrum = tf.signal.stft(tf.cast(waveforms, tf.float32), window, hop, size)
  with tf.init_scope():  # A constant, inside of a graph, too.
    mel = tf.signal.linear_to_mel_weight_matrix(bands, size // 2 + 1, sample_rate, lowest, highest, tf.float64).numpy()
  if not (mel > 0).any(0).all():
    raise ValueError(
      f"{bands} bands are too many for frames of {size} samples: some contain no frequency; choose fewer bands or a "
      "longer window."
    )
  return tf.math.log(tf.maximum(tf.tensordot(tf.square(tf.abs(spectrum)), mel.astype(np.float32), 1), floor))
