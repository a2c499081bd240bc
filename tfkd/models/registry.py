"""Networks by the names that papers and flags use."""

import functools
import re

import tf_keras as keras

from tfkd.models import _svhn_cnn, _vit, depthwise, resnet
from tfkd.models._resized import resized
from tfkd.models.family import Builder, Family
from tfkd.preprocessing import Preprocessing

FAMILIES: tuple[Family, ...] = (*resnet.FAMILIES, *_vit.FAMILIES, *_svhn_cnn.FAMILIES, *depthwise.FAMILIES)
"""All families. The first one whose pattern matches a name builds the network."""


def build(name: str, num_classes: int = 10, input_shape: tuple[int, int, int] = (32, 32, 3)) -> keras.Model:
  """Builds a network by its name.

  Args:
    name: resnet18, resnet34 or resnet50 (with the CIFAR stem for images of up to 64 pixels, else the ImageNet stem);
      resnet8, 14, 20, 32, 44, 56 or 110; wide residual networks such as wrn-16-2 or wrn-40-1; vit_tiny16, vit_small16
      or vit_base16, or another patch size in pixels, as in vit_tiny4; svhn_cnn, depthwise_cnn or plain_cnn. "x" and a
      number multiply the channels of residual networks and svhn_cnn, as in resnet8x4 or resnet50x0.125. "@" and a
      number, as in vit_base16@224, give the height and width that the network reads: images in [0, 1] are resized to
      it, and normalized as published weights of the family expect, to [-1, 1] for transformers and by ImageNet's mean
      and std for the others. `FAMILIES` lists the patterns.
    num_classes: size of the output, >= 2.
    input_shape: (height, width, channels).

  Returns:
    A `tf_keras` functional model from images to logits [batch, num_classes].

  Raises:
    ValueError: unknown name.
  """
  return parse(name)(num_classes=num_classes, input_shape=tuple(input_shape))


def parse(name: str) -> Builder:
  """Returns the function of (num_classes, input_shape) that builds a network; see `build`.

  Raises:
    ValueError: unknown name.
  """
  network, at, side = name.partition("@")
  for family in FAMILIES:
    match = re.fullmatch(family.pattern, network)
    builder = match and family.builder(match)
    if builder and not at:
      return builder
    if builder and re.fullmatch(r"[1-9]\d*", side):
      return functools.partial(_resized, builder, family.preprocessing._replace(size=int(side)))
    if match:
      break
  expected = "; ".join(family.names for family in FAMILIES)
  raise ValueError(
    f"unknown network {name!r}: expected {expected}; or one of these with @<side>, as in vit_tiny16@224."
  )


def _resized(builder: Builder, preprocessing: Preprocessing, num_classes, input_shape):
  shape = (preprocessing.size, preprocessing.size, 3)
  return resized(builder(num_classes=num_classes, input_shape=shape), input_shape, preprocessing)
