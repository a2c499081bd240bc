"""Crops of synthetic house numbers: an SVHN-like data set that needs no download.

Each 32x32 colour crop is centred on one digit of a street number, with its neighbours cut off on both sides, as in SVHN
Format 2. Fonts are matplotlib's; colour, contrast, lighting, pose, blur and noise are random. The files have SVHN's
names and format, so that `tfkd.data.svhn` reads both.
"""

import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tfkd.data.download import datasets_dir
from tfkd.data.svhn import SVHN
from tfkd.storage.files import atomic_path

SIZES = {"train": 20_000, "test": 5_000}
_SIDE = 32
_GLYPH_HEIGHT = 40  # Larger than in the crop, so that the affine map below only ever shrinks.
_CANVAS = (160, 72)
_FONTS = (
  "DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSans-Oblique.ttf", "DejaVuSans-BoldOblique.ttf",
  "DejaVuSansMono.ttf", "DejaVuSansMono-Bold.ttf", "DejaVuSerif.ttf", "DejaVuSerif-Bold.ttf",
  "DejaVuSerif-Italic.ttf", "STIXGeneral.ttf", "STIXGeneralBol.ttf", "STIXGeneralItalic.ttf",
  "cmr10.ttf", "cmb10.ttf", "cmss10.ttf", "cmtt10.ttf",
)  # fmt: skip

COVERAGE = 0.5
"""Share of a pixel that a digit's ink covers, before the blur, for the pixel to be the digit's in `Annotated.masks`."""
INSIDE = 0.5
"""Share of a digit's ink that is inside the crop, for the digit to be in `Annotated.present`."""
COLORS = ("lighter", "darker", "redder", "greener", "bluer")
"""Classes of the ink's colour beside the background's, see `Annotated.colors`."""


class Annotated(NamedTuple):
  """Crops with everything that is known of them."""

  images: np.ndarray
  """uint8 [n, 32, 32, 3]."""
  labels: np.ndarray
  """uint8 [n], the digits in the centre, 0..9."""
  masks: np.ndarray
  """uint8 [n, 32, 32]: 0 for background, d + 1 for pixels of a digit d of which `COVERAGE` is ink, neighbours too."""
  present: np.ndarray
  """uint8 [n, 10]: 1 for digits of which `INSIDE` or more is in the crop."""
  colors: np.ndarray
  """uint8 [n], positions in `COLORS`.

  "lighter" and "darker" if the ink has more, or less, than the background in all of red, green and blue; otherwise the
  channel in which the ink exceeds the background most. Blur mixes the two colours and changes no sign."""


class HouseNumbers(SVHN):
  """Synthetic house numbers, written to files when they are first read."""

  name = "house_numbers"
  splits = ("train", "test")

  def read(self, split: str, data_dir: str | os.PathLike | None) -> tuple[np.ndarray, np.ndarray]:
    directory = os.fspath(data_dir or datasets_dir(self.name))
    if os.path.exists(directory) and not os.path.isdir(directory):
      raise ValueError(f"data_dir {directory} is a file; expected a directory for train_32x32.mat and test_32x32.mat.")
    write(directory)
    return super().read(split, directory)


def draw(num_images: int, seed: int | Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
  """Draws crops of house numbers.

  Args:
    num_images: number of crops, >= 1.
    seed: int or sequence of ints; equal seeds give equal pixels.

  Returns:
    images uint8 [num_images, 32, 32, 3], labels uint8 [num_images]: the digits in the centre, 0..9.
  """
  images, labels, _ = _drawn(num_images, seed, annotated=False)
  return images, labels


def draw_annotated(num_images: int, seed: int | Sequence[int]) -> Annotated:
  """Draws the crops of `draw` with the digit of every pixel, the digits in the crop, and the class of the colour.

  Args:
    num_images, seed: see `draw`.
  """
  images, labels, annotations = _drawn(num_images, seed, annotated=True)
  return Annotated(images, labels, *annotations)


def write(directory: str | os.PathLike, seed: int = 0, sizes: Mapping[str, int] | None = None) -> None:
  """Writes `train_32x32.mat` and `test_32x32.mat`; existing files are kept.

  Args:
    directory: directory to write to; created if missing.
    seed: int; the splits are drawn from different streams of it.
    sizes: dict from split to number of images; None means `SIZES`.
  """
  from scipy.io import savemat

  for stream, (split, num_images) in enumerate((sizes or SIZES).items()):
    path = os.path.join(directory, f"{split}_32x32.mat")
    if os.path.exists(path):
      continue
    images, labels = draw(num_images, [seed, stream])
    labels = np.where(labels == 0, 10, labels).astype(np.uint8)[:, None]  # SVHN writes digit 0 as class 10.
    with atomic_path(path) as temporary:
      savemat(temporary, {"X": images.transpose(1, 2, 3, 0), "y": labels})


def _drawn(num_images, seed, annotated):
  """Returns images, labels and, if annotated, (masks, present, colors)."""
  rng = np.random.default_rng(seed)
  glyphs = _glyphs()
  labels = rng.integers(0, 10, num_images).astype(np.uint8)
  crops = [_crop(rng, glyphs[rng.integers(len(glyphs))], label, annotated) for label in labels]
  ink = np.stack([crop[0] for crop in crops])
  images, colors = np.empty((num_images, _SIDE, _SIDE, 3), np.uint8), np.empty(num_images, np.uint8)
  for start in range(0, num_images, 1000):  # To bound the memory of the float images.
    chunk = slice(start, start + 1000)
    images[chunk], colors[chunk] = _paint(rng, ink[chunk])
  if not annotated:
    return images, labels, ()
  masks, present = (np.stack(parts) for parts in zip(*(crop[1:] for crop in crops), strict=True))
  return images, labels, (masks, present, colors)


def _glyphs():
  """Renders the ten digits of each font as greyscale images of equal height: a list of lists."""
  from matplotlib import get_data_path
  from PIL import Image, ImageDraw, ImageFont

  fonts = []
  for name in _FONTS:
    path = os.path.join(get_data_path(), "fonts", "ttf", name)
    digits = []
    font = ImageFont.truetype(path, 56)
    for digit in "0123456789":
      left, top, right, bottom = font.getbbox(digit)
      image = Image.new("L", (int(right - left) + 2, int(bottom - top) + 2))
      ImageDraw.Draw(image).text((1 - left, 1 - top), digit, fill=255, font=font)
      width = max(6, round(image.width * _GLYPH_HEIGHT / image.height))
      # Equal heights, but own widths: an equal width would stretch "1" to a block.
      digits.append(image.resize((width, _GLYPH_HEIGHT), Image.Resampling.BILINEAR))
    fonts.append(digits)
  return fonts


def _crop(rng, digits, label, annotated):
  """Draws the ink of one crop, `label` in the middle between its neighbours.

  Returns:
    ink uint8 [32, 32] and, if annotated, the entries of `Annotated.masks` and `Annotated.present`.
  """
  from PIL import Image, ImageFilter

  strip = Image.new("L", _CANVAS)
  middle, top = _CANVAS[0] // 2, (_CANVAS[1] - _GLYPH_HEIGHT) // 2
  centre = digits[label]
  placed = [(label, middle - centre.width // 2, top)]  # Digits, columns and rows.
  gap = int(rng.integers(1, 9))
  if rng.random() < 0.65:
    left = rng.integers(10)
    column = middle - centre.width // 2 - gap - digits[left].width
    placed.append((left, column, top + int(rng.integers(-3, 4))))
  if rng.random() < 0.65:
    right = rng.integers(10)
    placed.append((right, middle - centre.width // 2 + centre.width + gap, top + int(rng.integers(-3, 4))))
  for digit, column, row in placed:
    strip.paste(digits[digit], (column, row))

  # The affine map goes from crop to strip coordinates: rotation, shear and scale around the digit's centre.
  angle, shear = np.deg2rad(rng.normal(0, 9)), rng.normal(0, 0.18)
  height = rng.uniform(15, 30)
  scale_y = _GLYPH_HEIGHT / height
  scale_x = scale_y * rng.uniform(0.75, 1.3)
  cos, sin = np.cos(angle), np.sin(angle)
  a, b = scale_x * (cos + shear * sin), scale_x * (-sin + shear * cos)
  d, e = scale_y * sin, scale_y * cos
  half = _SIDE / 2
  x, y = half + rng.uniform(-2.5, 2.5), half + rng.uniform(-2.5, 2.5)
  coefficients = (a, b, _CANVAS[0] / 2 - a * x - b * y, d, e, _CANVAS[1] / 2 - d * x - e * y)
  crop = strip.transform((_SIDE, _SIDE), Image.Transform.AFFINE, coefficients, Image.Resampling.BICUBIC)
  ink = np.asarray(crop.filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 1.6))))
  return (ink, *_annotations(crop, placed, digits, coefficients)) if annotated else (ink,)


def _annotations(crop, placed, digits, coefficients):
  """The entries of `Annotated.masks` and `Annotated.present` of one crop.

  Args:
    crop: ink of all digits before the blur, uint8 image of 32 x 32.
    placed: (digit, column, row) of each digit on the canvas.
    digits: glyphs of the font.
    coefficients: affine map from crop to canvas, of pixels' centres.
  """
  from PIL import Image

  a, b, c, d, e, f = coefficients
  to_crop = np.linalg.inv([[a, b], [d, e]])
  owner, present = Image.new("L", _CANVAS), np.zeros(10, np.uint8)
  for digit, column, row in placed:
    glyph = digits[digit]
    owner.paste(int(digit) + 1, (column, row, column + glyph.width, row + glyph.height))  # Boxes do not overlap.
    rows, columns = np.nonzero(np.asarray(glyph) >= COVERAGE * 255)
    x, y = to_crop @ [columns + column + 0.5 - c, rows + row + 0.5 - f]
    if np.mean((x >= 0) & (x < _SIDE) & (y >= 0) & (y < _SIDE)) >= INSIDE:
      present[digit] = 1
  owner = owner.transform((_SIDE, _SIDE), Image.Transform.AFFINE, coefficients, Image.Resampling.NEAREST)
  return np.where(np.asarray(crop) >= COVERAGE * 255, np.asarray(owner), 0).astype(np.uint8), present


def _paint(rng, coverage):
  """Paints ink over background, both under a linear light gradient, with sensor noise.

  Returns:
    uint8 [n, 32, 32, 3], and positions in `COLORS` [n].
  """
  n = len(coverage)
  luminance = rng.uniform(0.1, 0.9, (n, 1))
  contrast = rng.uniform(0.12, 0.6, (n, 1))
  # Lighter ink on dark background and vice versa: clipped colours would leave crops without visible ink.
  contrast *= np.where(luminance + rng.normal(0, 0.2, (n, 1)) > 0.5, -1, 1)
  background = np.clip(luminance + rng.normal(0, 0.13, (n, 3)), 0, 1)
  ink = np.clip(luminance + contrast + rng.normal(0, 0.13, (n, 3)), 0, 1)
  alpha = coverage[..., None].astype(np.float32) / 255
  images = background[:, None, None] * (1 - alpha) + ink[:, None, None] * alpha
  ramp = np.linspace(-1, 1, _SIDE)
  slope = rng.normal(0, 0.08, (n, 2))
  images += (slope[:, :1] * ramp)[:, None, :, None] + (slope[:, 1:] * ramp)[:, :, None, None]
  images += rng.standard_normal(images.shape, np.float32) * rng.uniform(0.005, 0.07, (n, 1, 1, 1))
  return np.round(np.clip(images, 0, 1) * 255).astype(np.uint8), _color(ink - background)


def _color(difference):
  """Positions in `COLORS`, from the ink's colour less the background's, [n, 3]."""
  channel = 2 + difference.argmax(axis=1)
  return np.select([(difference > 0).all(axis=1), (difference < 0).all(axis=1)], [0, 1], channel)
