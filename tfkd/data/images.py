"""Pictures of strangers, read as arrays."""

import numpy as np

# Formats that need no other program: Pillow gives PostScript to Ghostscript, which runs it.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
_MOST_PIXELS = 100_000_000  # 400 MB, once decoded.


def read_image(path, height, width):
  """Reads a JPEG, PNG, WEBP, GIF or BMP file of any size and mode, upright; its middle is brought to a size.

  Args:
    path: of the file.
    height, width: of the result, in pixels.

  Returns:
    uint8 [height, width, 3].

  Raises:
    ValueError: the file is not such an image, is damaged, or has more than 100 million pixels.
  """
  from PIL import Image, ImageOps

  try:
    with Image.open(path, formats=_FORMATS) as image:
      if image.width * image.height > _MOST_PIXELS:
        raise ValueError(f"{image.width} x {image.height} pixels are more than {_MOST_PIXELS:,}")
      image.draft("RGB", (width, height))  # A JPEG of many times the size is decoded at a fraction of it.
      upright = ImageOps.exif_transpose(image).convert("RGB")
      return np.asarray(ImageOps.fit(upright, (width, height), Image.Resampling.BILINEAR))
  # Pillow raises nearly anything for a damaged file.
  except (OSError, SyntaxError, ValueError, TypeError, IndexError, KeyError, OverflowError, MemoryError,
          Image.DecompressionBombError) as error:  # fmt: skip
    raise ValueError(f"{path} is not an image that can be read: {error}.") from error
