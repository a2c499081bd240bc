"""Networks by the names that papers and flags call them."""

import functools
import re
from collections.abc import Callable

import tf_keras as keras

from tfkd.models._resized import resized
from tfkd.models._svhn_cnn import svhn_cnn
from tfkd.models._vit import WIDTHS, vit
from tfkd.models.depthwise import depthwise_cnn, plain_cnn
from tfkd.models.resnet import cifar_resnet, resnet18, resnet34, resnet50, usual_stem, wide_resnet
from tfkd.preprocessing import HALVES, IMAGENET

# Functions of width, and the width at which they have their name.
_BY_WIDTH = {
  "svhn_cnn": (svhn_cnn, 16), "resnet18": (resnet18, 64), "resnet34": (resnet34, 64), "resnet50": (resnet50, 64),
}  # fmt: skip
_FIXED = {"depthwise_cnn": depthwise_cnn, "plain_cnn": plain_cnn}


def build(name: str, num_classes: int = 10, input_shape: tuple[int, int, int] = (32, 32, 3)) -> keras.Model:
  """Builds a network by its name.

  Args:
    name: resnet18, resnet34 or resnet50 (with the CIFAR stem for images of up to 64 pixels, else the ImageNet stem);
      resnet8, 14, 20, 32, 44, 56 or 110; wrn-16-1, 16-2, 40-1 or 40-2 and their like; vit_tiny16, vit_small16 or
      vit_base16, or with another side of a patch in pixels, as vit_tiny4; svhn_cnn, depthwise_cnn or plain_cnn. "x" and
      a number multiplies the channels, as in resnet8x4 or resnet50x0.125; a wrn has its factor as its last number, and
      transformers and the last two have one size. "@" and a number, as in vit_base16@224, is a network for images of so
      many pixels a side, to which it resizes what it is given, in [0, 1], and which it normalises as its pretrained
      likes do: to [-1, 1] for transformers, with ImageNet's mean and std for the others.
    num_classes: size of the output, >= 2.
    input_shape: (height, width, channels).

  Returns:
    A `tf_keras` functional model from images to logits [batch, num_classes].

  Raises:
    ValueError: there is no such network.
  """
  return parse(name)(num_classes=num_classes, input_shape=tuple(input_shape))


def parse(name: str) -> Callable[..., keras.Model]:
  """Returns the function of (num_classes, input_shape) that builds a network; see `build`.

  Raises:
    ValueError: there is no such network.
  """
  network, at, side = name.partition("@")
  if at and re.fullmatch(r"[1-9]\d*", side):
    preprocessing = HALVES if network.startswith("vit") else IMAGENET
    return functools.partial(_resized, parse(network), preprocessing._replace(size=int(side)))
  if name in _FIXED:
    return _FIXED[name]
  wide = re.fullmatch(r"wrn-(\d+)-(\d+)", name)
  if wide and int(wide[1]) >= 10 and int(wide[1]) % 6 == 4 and int(wide[2]) >= 1:
    return functools.partial(wide_resnet, int(wide[1]), int(wide[2]))
  transformer = re.fullmatch(rf"vit_({'|'.join(WIDTHS)})(\d+)", name)
  if transformer and int(transformer[2]) >= 1:
    return functools.partial(vit, patch_size=int(transformer[2]), width=WIDTHS[transformer[1]], name=name)
  family, _, factor = name.partition("x")
  factor = _number(factor) if factor else 1 if family == name else None
  if family in _BY_WIDTH and factor:
    function, width = _BY_WIDTH[family]
    if (width * factor) % 1 == 0:
      return functools.partial(_of_width, function, int(width * factor), name)
  depth = re.fullmatch(r"resnet(\d+)", family)
  if depth and family not in _BY_WIDTH and int(depth[1]) >= 8 and int(depth[1]) % 6 == 2 and factor and factor % 1 == 0:
    return functools.partial(cifar_resnet, int(depth[1]), factor=int(factor))
  raise ValueError(
    f"unknown network {name!r}: expected {', '.join(_FIXED)}; {', '.join(_BY_WIDTH)}, with a factor of width as in "
    "resnet18x0.25; resnet<6n+2> as in resnet8, resnet20 or resnet8x4; wrn-<6n+4>-<factor> as in wrn-16-2; or "
    "vit_<tiny, small or base><side of a patch> as in vit_tiny16."
  )


def _resized(build_network, preprocessing, num_classes, input_shape):
  shape = (preprocessing.size, preprocessing.size, 3)
  return resized(build_network(num_classes=num_classes, input_shape=shape), input_shape, preprocessing)


def _number(text):
  return float(text) if re.fullmatch(r"\d+(\.\d+)?", text) else None


def _of_width(function, width, name, num_classes, input_shape):
  options = {} if function is svhn_cnn else {"stem": usual_stem(input_shape)}
  return function(num_classes, input_shape, width=width, name=name, **options)
