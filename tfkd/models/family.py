"""Families of networks: each owns the pattern of its names."""

import dataclasses
import re
from collections.abc import Callable

import tf_keras as keras

from tfkd.preprocessing import IMAGENET, Preprocessing

Builder = Callable[..., keras.Model]
"""Function of (num_classes, input_shape) that returns a model from images to logits; see also `Family.weights`."""
FACTOR = r"(?:x(?P<factor>\d+(?:\.\d+)?))?"
"""Pattern of an optional multiplier of the channels, as in "resnet18x0.25"; see `scaled`."""


@dataclasses.dataclass(frozen=True)
class Family:
  """Networks whose names share one pattern.

  Args:
    pattern: regular expression that matches the whole name.
    names: the names in words, with an example, for documentation and error messages.
    builder: function from the match to a `Builder`, or None if there is no network with these numbers.
    preprocessing: what published weights of the family expect. `<name>@<side>` applies it to images in [0, 1].
    weights: names of published weights that the family's builders accept as an argument `weights`.
  """

  pattern: str
  names: str
  builder: Callable[[re.Match[str]], Builder | None]
  preprocessing: Preprocessing = IMAGENET
  weights: tuple[str, ...] = ()


def scaled(width: int, match: re.Match[str]) -> int | None:
  """Multiplies a width by the factor in a name; None if the product is not a positive integer."""
  product = width * float(match["factor"] or 1)
  return int(product) if product > 0 and product % 1 == 0 else None
