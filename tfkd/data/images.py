"""Decodes untrusted image files."""

import io
import os

import numpy as np

# Formats that Pillow decodes itself: it passes PostScript to Ghostscript, which executes it.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
_MAX_PIXELS = 100_000_000  # 400 MB once decoded.


def read_image(path: str | os.PathLike, height: int, width: int, content: bytes | None = None) -> np.ndarray:
  """Reads a JPEG, PNG, WEBP, GIF or BMP file of any size and mode as an upright RGB image.

  The image is resized to cover height and width, and its centre is cropped.

  Args:
    path: image file.
    height, width: size of the result in pixels.
    content: of the file, if it was read from an archive; path then only names it in messages.

  Returns:
    uint8 [height, width, 3].

  Raises:
    ValueError: the file is of another format, is damaged, or has more than 100 million pixels.
  """
  from PIL import Image, ImageOps

  try:
    with Image.open(path if content is None else io.BytesIO(content), formats=_FORMATS) as image:
      if image.width * image.height > _MAX_PIXELS:
        raise ValueError(f"{image.width} x {image.height} pixels are more than {_MAX_PIXELS:,}")
      image.draft("RGB", (width, height))  # Decodes a much larger JPEG at a fraction of its size.
      upright = ImageOps.exif_transpose(image).convert("RGB")
      return np.asarray(ImageOps.fit(upright, (width, height), Image.Resampling.BILINEAR))
  # Pillow raises many types of errors for damaged files.
  except (OSError, SyntaxError, ValueError, TypeError, IndexError, KeyError, OverflowError, MemoryError,
          Image.DecompressionBombError) as error:  # fmt: skip
    raise ValueError(f"{path} is not a readable image: {error}.") from error
