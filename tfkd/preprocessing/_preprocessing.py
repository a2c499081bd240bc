"""The preprocessing of images that data sets, resized networks, teachers and exported files share."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf


class Preprocessing(NamedTuple):
  """Resizes, scales and normalizes images: (scale * resize(images) - mean) / std."""

  size: int | tuple[int, int] | None = None
  """Height and width of the result, or one int for a square; None keeps the size of the images."""
  scale: float = 1.0
  """Factor of the pixel values, such as 255 for a network that reads [0, 255] where images are in [0, 1]."""
  mean: float | Sequence[float] = 0.0
  """Subtracted after scaling: one number, or one per channel."""
  std: float | Sequence[float] = 1.0
  """Divisor after the mean is subtracted: one positive number, or one per channel."""

  def __call__(self, images: tf.Tensor) -> tf.Tensor:
    """Applies the preprocessing to a batch.

    Args:
      images: [batch, height, width, channels], in [0, 1] where `tfkd.data` made them and did not normalize them.

    Returns:
      float32 [batch, *size, channels]. Resizing is bilinear, with antialiasing where it shrinks, as Pillow does it.
    """
    images = tf.cast(images, tf.float32)
    if self.size is not None:
      size = (self.size, self.size) if isinstance(self.size, int) else tuple(self.size)
      images = tf.image.resize(images, size, antialias=True)
    return (self.scale * images - tf.constant(self.mean, tf.float32)) / tf.constant(self.std, tf.float32)

  @property
  def normalizes(self) -> bool:
    """Whether mean and std change any value."""
    return bool(np.any(np.asarray(self.mean) != 0) or np.any(np.asarray(self.std) != 1))

  def mean_and_std(self, channels: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean and std as checked arrays.

    Args:
      channels: number of channels of the images; None accepts any.

    Returns:
      mean and std, float64 [] or [channels] each.

    Raises:
      ValueError: a value is not finite, std is not positive, or the number of values is neither 1 nor `channels`.
    """
    try:
      mean, std = (np.squeeze(np.asarray(part, np.float64)) for part in (self.mean, self.std))
    except (ValueError, TypeError) as error:
      raise ValueError(f"mean and std must be numbers; got {self.mean!r} and {self.std!r}.") from error
    sizes = {part.size for part in (mean, std) if part.ndim}
    fits = mean.ndim <= 1 and std.ndim <= 1 and len(sizes) <= 1 and (channels is None or sizes <= {channels})
    if not (fits and np.isfinite(mean).all() and np.isfinite(std).all() and (std > 0).all()):
      expected = "each channel" if channels is None else f"each of {channels} channels"
      raise ValueError(
        f"mean and std must be finite numbers, or one for {expected}, and std > 0; got {self.mean} and {self.std}."
      )
    return mean, std


IMAGENET = Preprocessing(224, 1.0, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""ImageNet's statistics of images in [0, 1]: torchvision's residual networks, and most of timm's.

Source of this and the next constant: the configurations that torchvision, timm and Hugging Face publish.
"""
HALVES = Preprocessing(224, 1.0, 0.5, 0.5)
"""Images in [-1, 1]: Google's vision transformers, in timm (`augreg`) and at Hugging Face."""
