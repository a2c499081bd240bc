"""Reads WAV files for models of waveforms."""

import os
import warnings

import numpy as np


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
  from scipy.io import wavfile

  if not os.path.isfile(path):
    raise FileNotFoundError(f"no WAV file at {path}.")
  try:
    with warnings.catch_warnings():
      warnings.simplefilter("ignore", wavfile.WavFileWarning)  # Of chunks that hold no samples.
      rate, values = wavfile.read(path)
  except Exception as error:  # scipy raises errors of many types for damaged content.
    raise ValueError(
      f"{path} is not a WAV file ({type(error).__name__}: {error}); expected one channel of at most {samples} samples "
      f"at {sample_rate} Hz."
    ) from error
  if values.ndim != 1:
    raise ValueError(f"{path} has {values.shape[1]} channels; expected one: mix them.")
  if rate != sample_rate:
    raise ValueError(f"{path} has {rate} samples per second; expected {sample_rate}: resample it.")
  if len(values) > samples:
    raise ValueError(f"{path} has {len(values)} samples; the model takes {samples}: cut it.")
  if values.dtype == np.uint8:
    values = (values.astype(np.float32) - 128) / 128
  elif np.issubdtype(values.dtype, np.integer):
    values = values / (np.iinfo(values.dtype).max + 1)
  return np.pad(values.astype(np.float32), (0, samples - len(values)))
