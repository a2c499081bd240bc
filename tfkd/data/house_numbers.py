"""Crops of drawn house numbers: an SVHN-like data set that needs no download.

Each 32x32 colour crop is centred on one digit of a street number; its neighbours are cut off at both sides, as in SVHN
Format 2. Fonts come with matplotlib; colour, contrast, lighting, pose, blur and noise are drawn at random. The files
have SVHN's names and format, so that `tfkd.data.svhn` reads both.
"""

import os

import numpy as np

from tfkd.storage.files import atomic_path

SIZES = {"train": 20_000, "test": 5_000}
_SIDE = 32
_GLYPH_HEIGHT = 40  # Drawn larger than it is shown: the affine map below then only ever shrinks.
_CANVAS = (160, 72)
_FONTS = (
  "DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSans-Oblique.ttf", "DejaVuSans-BoldOblique.ttf",
  "DejaVuSansMono.ttf", "DejaVuSansMono-Bold.ttf", "DejaVuSerif.ttf", "DejaVuSerif-Bold.ttf",
  "DejaVuSerif-Italic.ttf", "STIXGeneral.ttf", "STIXGeneralBol.ttf", "STIXGeneralItalic.ttf",
  "cmr10.ttf", "cmb10.ttf", "cmss10.ttf", "cmtt10.ttf",
)  # fmt: skip


def draw(num_images, seed):
  """Draws house-number crops.

  Args:
    num_images: how many, >= 1.
    seed: int or sequence of ints; equal seeds give equal pixels.

  Returns:
    images: uint8 [num_images, 32, 32, 3].
    labels: uint8 [num_images], the centre digit, 0..9.
  """
  rng = np.random.default_rng(seed)
  glyphs = _glyphs()
  labels = rng.integers(0, 10, num_images).astype(np.uint8)
  masks = np.stack([_mask(rng, glyphs[rng.integers(len(glyphs))], label) for label in labels])
  images = np.empty((num_images, _SIDE, _SIDE, 3), np.uint8)
  for start in range(0, num_images, 1000):  # Bounds the memory of the float images.
    chunk = slice(start, start + 1000)
    images[chunk] = _paint(rng, masks[chunk])
  return images, labels


def write(directory, seed=0, sizes=None):
  """Writes `train_32x32.mat` and `test_32x32.mat` into `directory`; files that exist are kept.

  Args:
    directory: where to; made if missing.
    seed: the two splits are drawn from different streams of this seed.
    sizes: dict from split to number of images; `SIZES` by default.
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


def _glyphs():
  """One list of ten greyscale digit images for each font, all of the same height."""
  from matplotlib import get_data_path
  from PIL import Image, ImageDraw, ImageFont

  fonts = []
  for name in _FONTS:
    path = os.path.join(get_data_path(), "fonts", "ttf", name)
    digits = []
    font = ImageFont.truetype(path, 56)
    for digit in "0123456789":
      left, top, right, bottom = font.getbbox(digit)
      image = Image.new("L", (right - left + 2, bottom - top + 2))
      ImageDraw.Draw(image).text((1 - left, 1 - top), digit, fill=255, font=font)
      width = max(6, round(image.width * _GLYPH_HEIGHT / image.height))
      # "1" would be stretched to a block if every glyph were given the same width: heights are equal, widths are not.
      digits.append(image.resize((width, _GLYPH_HEIGHT), Image.Resampling.BILINEAR))
    fonts.append(digits)
  return fonts


def _mask(rng, digits, label):
  """uint8 [32, 32]: where the ink of one crop is, `label` in the middle, neighbours beside it."""
  from PIL import Image, ImageFilter

  strip = Image.new("L", _CANVAS)
  middle, top = _CANVAS[0] // 2, (_CANVAS[1] - _GLYPH_HEIGHT) // 2
  centre = digits[label]
  strip.paste(centre, (middle - centre.width // 2, top))
  gap = int(rng.integers(1, 9))
  if rng.random() < 0.65:
    left = digits[rng.integers(10)]
    strip.paste(left, (middle - centre.width // 2 - gap - left.width, top + int(rng.integers(-3, 4))))
  if rng.random() < 0.65:
    right = digits[rng.integers(10)]
    strip.paste(right, (middle - centre.width // 2 + centre.width + gap, top + int(rng.integers(-3, 4))))

  # The affine map takes crop coordinates to strip coordinates: rotation, shear and scale around the digit's centre.
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
  return np.asarray(crop.filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 1.6))))


def _paint(rng, masks):
  """uint8 [n, 32, 32, 3]: ink over background, both lit by a linear gradient, with sensor noise."""
  n = len(masks)
  luminance = rng.uniform(0.1, 0.9, (n, 1))
  contrast = rng.uniform(0.12, 0.6, (n, 1))
  # Lighter or darker, whichever has room: clipped colours would leave crops without any ink.
  contrast *= np.where(luminance + rng.normal(0, 0.2, (n, 1)) > 0.5, -1, 1)
  background = np.clip(luminance + rng.normal(0, 0.13, (n, 3)), 0, 1)
  ink = np.clip(luminance + contrast + rng.normal(0, 0.13, (n, 3)), 0, 1)
  alpha = masks[..., None].astype(np.float32) / 255
  images = background[:, None, None] * (1 - alpha) + ink[:, None, None] * alpha
  ramp = np.linspace(-1, 1, _SIDE)
  slope = rng.normal(0, 0.08, (n, 2))
  images += (slope[:, :1] * ramp)[:, None, :, None] + (slope[:, 1:] * ramp)[:, :, None, None]
  images += rng.standard_normal(images.shape, np.float32) * rng.uniform(0.005, 0.07, (n, 1, 1, 1))
  return np.round(np.clip(images, 0, 1) * 255).astype(np.uint8)
