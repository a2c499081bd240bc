"""What a teacher does to the images that its student reads, before it reads them itself."""

from typing import NamedTuple

import tensorflow as tf

from tfkd.preprocessing import imagenet


class Preprocessing(NamedTuple):
  """Resizes and scales: (scale * resize(images) - mean) / deviation.

  Source of the two constants below: torchvision's, timm's and Hugging Face's own configurations.
  """

  size: int | tuple[int, int] | None = None
  """Height and width of what the teacher reads, one number for squares; None leaves the images' own."""
  scale: float = 1.0
  """255 for a teacher that reads [0, 255]."""
  mean: float | tuple[float, ...] = 0.0
  """Of each channel, or of all, after scaling."""
  deviation: float | tuple[float, ...] = 1.0

  def __call__(self, images):
    """Applies it.

    Args:
      images: [batch, height, width, channels], in the student's range: [0, 1] where `tfkd.data` normalises nothing.

    Returns:
      float32 [batch, *size, channels], bilinear; where it shrinks, antialiased as Pillow does.
    """
    images = tf.cast(images, tf.float32)
    if self.size is not None:
      size = (self.size, self.size) if isinstance(self.size, int) else tuple(self.size)
      images = tf.image.resize(images, size, antialias=True)
    return (self.scale * images - tf.constant(self.mean)) / tf.constant(self.deviation)


IMAGENET = Preprocessing(224, 1.0, imagenet.MEAN, imagenet.DEVIATION)
"""torchvision's residual networks, and most of timm's."""
HALVES = Preprocessing(224, 1.0, 0.5, 0.5)
"""Images in [-1, 1]: Google's vision transformers, in timm (`augreg`) and at Hugging Face."""
