"""One line about the outputs of a file for one example, by task."""

import os
from collections.abc import Sequence

import numpy as np

from tfkd.storage.files import atomic_path


def classes(scores: np.ndarray, labels: Sequence[str], ending: str | None, top: int) -> str:
  """Returns the most probable classes of scores [classes] with their probabilities."""
  probabilities = scores if ending else _softmax(scores)
  best = np.argsort(-probabilities)[:top]
  return ", ".join(f"{labels[number]} {100 * probabilities[number]:.1f} %" for number in best)


def over_threshold(scores: np.ndarray, labels: Sequence[str], ending: str | None, threshold: float) -> str:
  """Returns the labels of scores [labels] whose probabilities exceed a threshold, the most probable first."""
  probabilities = scores if ending else 1 / (1 + np.exp(-scores.astype(np.float64)))
  chosen = [number for number in np.argsort(-probabilities) if probabilities[number] > threshold]
  found = ", ".join(f"{labels[number]} {100 * probabilities[number]:.1f} %" for number in chosen)
  return found or f"no label over {100 * threshold:g} %"


def numbers(values: np.ndarray, labels: Sequence[str] | None) -> str:
  """Returns the numbers [values], with their names if they have any."""
  flat = [f"{value:.6g}" for value in np.ravel(values)]
  return ", ".join(f"{name} {value}" for name, value in zip(labels, flat, strict=True)) if labels else ", ".join(flat)


def mask(scores: np.ndarray, labels: Sequence[str], path: str) -> str:
  """Writes the classes of scores [height, width, classes] as a PNG file, and returns their shares of the pixels.

  The file has the numbers of the classes as pixels, with a color for each.

  Args:
    scores: of the pixels.
    labels: names of the classes.
    path: path of the file, replaced if it exists.
  """
  from PIL import Image

  chosen = scores.argmax(-1)
  picture = Image.fromarray(chosen.astype(np.uint8), "P")
  picture.putpalette(_palette().ravel().tolist())
  with atomic_path(path) as temporary, open(temporary, "wb") as file:
    picture.save(file, "PNG")
  shares = np.bincount(chosen.ravel(), minlength=scores.shape[-1]) / chosen.size
  found = [f"{labels[number]} {100 * shares[number]:.1f} %" for number in np.argsort(-shares) if shares[number]]
  return f"{', '.join(found)}; {path}"


def mask_path(directory: str, picture: str) -> str:
  """Returns the path of the mask of a picture."""
  return os.path.join(directory, f"{os.path.splitext(os.path.basename(picture))[0]}.mask.png")


def _palette() -> np.ndarray:
  """Returns uint8 [256, 3], colors that differ between classes of near numbers; that of PASCAL VOC."""
  numbers = np.arange(256)
  colors = np.zeros([256, 3], np.int64)
  for bit in range(8):
    for channel in range(3):
      colors[:, channel] |= (numbers >> (3 * bit + channel) & 1) << (7 - bit)
  return colors.astype(np.uint8)


def _softmax(logits: np.ndarray) -> np.ndarray:
  exponentials = np.exp(logits - logits.max())
  return exponentials / exponentials.sum()
