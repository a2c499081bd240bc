"""Residual networks: ResNet-18, 34 and 50, the narrow CIFAR family, and wide residual networks.

Stage outputs, after their last ReLU, are layers called `layer1`, `layer2` and so on; the rest is named after them, as
`layer2_block0_conv1`. Every convolution is followed by batch normalisation without an activation between, so that all
of them can be quantized to eight bits.
"""

import functools

import tf_keras as keras

from tfkd.models.classifier import classifier
from tfkd.models.family import FACTOR, Family, scaled

layers = keras.layers
_STEMS = ("cifar", "imagenet")
_LARGEST_CIFAR_IMAGE = 64
# tf_keras' 0.99 would need about 500 steps before evaluation sees the statistics that training saw.
_MOMENTUM = 0.9
_EPSILON = 1e-5  # PyTorch's, so that its weights mean the same here.


def resnet18(
  num_classes: int = 10,
  input_shape: tuple[int, int, int] = (32, 32, 3),
  stem: str = "cifar",
  width: int = 64,
  name: str = "resnet18",
) -> keras.Model:
  """ResNet-18; see `_resnet`. 11,173,962 trainable weights with the CIFAR stem and ten classes."""
  return _resnet((2, 2, 2, 2), _basic, 1, num_classes, input_shape, stem, width, name)


def resnet34(
  num_classes: int = 10,
  input_shape: tuple[int, int, int] = (32, 32, 3),
  stem: str = "cifar",
  width: int = 64,
  name: str = "resnet34",
) -> keras.Model:
  """ResNet-34; see `_resnet`. 21,282,122 trainable weights with the CIFAR stem and ten classes."""
  return _resnet((3, 4, 6, 3), _basic, 1, num_classes, input_shape, stem, width, name)


def resnet50(
  num_classes: int = 10,
  input_shape: tuple[int, int, int] = (32, 32, 3),
  stem: str = "cifar",
  width: int = 64,
  name: str = "resnet50",
) -> keras.Model:
  """ResNet-50; see `_resnet`. 23,520,842 trainable weights with the CIFAR stem and ten classes."""
  return _resnet((3, 4, 6, 3), _bottleneck, 4, num_classes, input_shape, stem, width, name)


def usual_stem(input_shape: tuple[int, int, int]) -> str:
  """The stem for images of this (height, width, channels): "cifar" up to 64 pixels a side, else "imagenet"."""
  return "cifar" if max(input_shape[:2]) <= _LARGEST_CIFAR_IMAGE else "imagenet"


def cifar_resnet(
  depth: int,
  num_classes: int = 10,
  input_shape: tuple[int, int, int] = (32, 32, 3),
  factor: int = 1,
  name: str | None = None,
) -> keras.Model:
  """The three-stage residual networks of the CIFAR tables: resnet8, 14, 20, 32, 56, and resnet8x4, resnet32x4.

  Stages of 16, 32 and 64 times `factor` channels after a stem of 16, or of 32 where `factor` is 4, with projections
  where the shape changes.
  Source: He et al. 2016, arXiv:1512.03385, section 4.2, with projections in place of zero padding, as in the tables of
  Tian et al. 2020, arXiv:1910.10699. resnet20 has 0.27 million trainable weights.

  Args:
    depth: 6 n + 2.
    num_classes: size of the output, >= 2.
    input_shape: (height, width, channels).
    factor: multiplies the channels of the stages.
    name: name of the model; by default resnet<depth>, with x<factor>.

  Returns:
    A `tf_keras` functional model from images to logits [batch, num_classes].

  Raises:
    ValueError: depth is not 6 n + 2, or there are fewer than two classes.
  """
  if depth < 8 or depth % 6 != 2:
    raise ValueError(f"depth must be 6 n + 2, as 8, 14, 20, 32 or 56; got {depth}.")
  name = name or f"resnet{depth}" + (f"x{factor}" if factor != 1 else "")
  inputs = keras.Input(input_shape, name="images")
  x = _relu(_convolution(inputs, 32 if factor == 4 else 16, 3, 1, "conv1"), "relu1")
  for stage in range(3):
    x = _stage(x, _basic, depth // 6, 16 * factor * 2**stage, 1, stage)
  return classifier(inputs, x, num_classes, name)


def wide_resnet(
  depth: int,
  factor: int,
  num_classes: int = 10,
  input_shape: tuple[int, int, int] = (32, 32, 3),
  name: str | None = None,
) -> keras.Model:
  """Wide residual networks with pre-activation: wrn-16-1, 16-2, 40-1 and 40-2.

  Stages of 16, 32 and 64 times `factor` channels after a stem of 16. wrn-40-2 has 2.2 million trainable weights.
  Source: Zagoruyko, Komodakis 2016, arXiv:1605.07146, without dropout.

  Args:
    depth: 6 n + 4.
    factor: multiplies the channels of the stages.
    num_classes, input_shape: see `cifar_resnet`.
    name: name of the model; by default wrn_<depth>_<factor>.

  Returns:
    A `tf_keras` functional model from images to logits [batch, num_classes].

  Raises:
    ValueError: depth is not 6 n + 4, or there are fewer than two classes.
  """
  if depth < 10 or depth % 6 != 4:
    raise ValueError(f"depth must be 6 n + 4, as 16 or 40; got {depth}.")
  inputs = keras.Input(input_shape, name="images")
  x = layers.Conv2D(16, 3, padding="same", use_bias=False, kernel_initializer="he_normal", name="conv1")(inputs)
  for stage in range(3):
    channels, stride = 16 * factor * 2**stage, 1 if stage == 0 else 2
    for block in range(depth // 6):
      # The sum that ends a stage is its feature; the next block's normalisation and ReLU are of that block.
      end = f"layer{stage + 1}" if block + 1 == depth // 6 else None
      x = _preactivated(x, channels, stride if block == 0 else 1, f"layer{stage + 1}_block{block}", end)
  x = _relu(_normalized(x, "last"), "last_relu")
  return classifier(inputs, x, num_classes, name or f"wrn_{depth}_{factor}")


def _resnet(blocks, block, expansion, num_classes, input_shape, stem, width, name):
  """Builds a four-stage residual network.

  Source: He et al. 2016, arXiv:1512.03385, table 1; the bottleneck's stride is at its 3x3 convolution, as everywhere
  today. Padding is symmetric, as in PyTorch, so that PyTorch weights give the same outputs.

  Args:
    blocks: blocks of each stage.
    block: function that adds one.
    expansion: channels of a block's output over those of its 3x3 convolution.
    num_classes: size of the output, >= 2.
    input_shape: (height, width, channels).
    stem: "cifar" (3x3, stride 1) or "imagenet" (7x7, stride 2, and max-pooling).
    width: channels of the first stage's 3x3 convolutions; the others follow.
    name: name of the model.

  Returns:
    A `tf_keras` functional model from images to logits [batch, num_classes].

  Raises:
    ValueError: unknown stem, or fewer than two classes.
  """
  if stem not in _STEMS:
    raise ValueError(f"unknown stem {stem!r}: expected one of {', '.join(_STEMS)}.")
  inputs = keras.Input(input_shape, name="images")
  kernel, stride = (3, 1) if stem == "cifar" else (7, 2)
  x = _relu(_convolution(inputs, width, kernel, stride, "conv1"), "relu1")
  if stem == "imagenet":
    # Zeros serve as well as minus infinity: nothing is negative after ReLU.
    x = layers.MaxPooling2D(3, 2, name="pool1")(layers.ZeroPadding2D(1, name="pool1_pad")(x))
  for stage, count in enumerate(blocks):
    x = _stage(x, block, count, width * 2**stage, expansion, stage)
  return classifier(inputs, x, num_classes, name)


def _stage(x, block, count, channels, expansion, stage):
  for i in range(count):
    stride = 2 if i == 0 and stage > 0 else 1
    name = f"layer{stage + 1}_block{i}"
    shortcut = x
    if stride != 1 or x.shape[3] != channels * expansion:
      shortcut = _convolution(x, channels * expansion, 1, stride, f"{name}_shortcut")
    x = layers.Add(name=f"{name}_add")([block(x, channels, stride, name), shortcut])
    x = _relu(x, f"layer{stage + 1}" if i + 1 == count else f"{name}_relu")
  return x


def _basic(x, channels, stride, name):
  x = _relu(_convolution(x, channels, 3, stride, f"{name}_conv1"), f"{name}_relu1")
  return _convolution(x, channels, 3, 1, f"{name}_conv2")


def _bottleneck(x, channels, stride, name):
  x = _relu(_convolution(x, channels, 1, 1, f"{name}_conv1"), f"{name}_relu1")
  x = _relu(_convolution(x, channels, 3, stride, f"{name}_conv2"), f"{name}_relu2")
  return _convolution(x, 4 * channels, 1, 1, f"{name}_conv3")


def _preactivated(x, channels, stride, name, end):
  active = _relu(_normalized(x, f"{name}_pre"), f"{name}_relu0")
  shortcut = x
  if stride != 1 or x.shape[3] != channels:
    shortcut = _bare_convolution(active, channels, 1, stride, f"{name}_shortcut")
  x = _relu(_convolution(active, channels, 3, stride, f"{name}_conv1"), f"{name}_relu1")
  x = _bare_convolution(x, channels, 3, 1, f"{name}_conv2")
  return layers.Add(name=end or f"{name}_add")([x, shortcut])


def _convolution(x, channels, kernel, stride, name):
  """Convolution and batch normalisation."""
  x = _bare_convolution(x, channels, kernel, stride, name)
  return layers.BatchNormalization(momentum=_MOMENTUM, epsilon=_EPSILON, name=f"{name}_bn")(x)


def _bare_convolution(x, channels, kernel, stride, name):
  options = {"use_bias": False, "kernel_initializer": "he_normal", "name": name}
  if stride == 1 or kernel == 1:
    return layers.Conv2D(channels, kernel, stride, padding="same", **options)(x)
  # Keras' own padding of a strided convolution is one-sided.
  x = layers.ZeroPadding2D(kernel // 2, name=f"{name}_pad")(x)
  return layers.Conv2D(channels, kernel, stride, **options)(x)


def _normalized(x, name):
  """Batch normalisation of a sum.

  Eight-bit schemes fold batch normalisation into the convolution before it, and there is none here: a depthwise 1x1
  convolution with constant ones is inserted, which does not change the values.
  """
  ones = layers.DepthwiseConv2D(
    1, use_bias=False, depthwise_initializer="ones", trainable=False, name=f"{name}_identity"
  )
  return layers.BatchNormalization(momentum=_MOMENTUM, epsilon=_EPSILON, name=f"{name}_bn")(ones(x))


def _relu(x, name):
  return layers.ReLU(name=name)(x)


def _named_resnet(match):
  function, width = {"18": resnet18, "34": resnet34, "50": resnet50}[match[1]], scaled(64, match)
  if not width:
    return None

  def build(num_classes, input_shape):
    return function(num_classes, input_shape, usual_stem(input_shape), width, name=match[0])

  return build


def _named_cifar_resnet(match):
  depth, factor = int(match[1]), scaled(1, match)
  is_known = depth >= 8 and depth % 6 == 2
  return functools.partial(cifar_resnet, depth, factor=factor) if is_known and factor else None


def _named_wide_resnet(match):
  depth, factor = int(match[1]), int(match[2])
  is_known = depth >= 10 and depth % 6 == 4 and factor >= 1
  return functools.partial(wide_resnet, depth, factor) if is_known else None


FAMILIES = (
  Family(
    rf"resnet(18|34|50){FACTOR}",
    "resnet18, resnet34 or resnet50, with a factor of the width as in resnet18x0.25",
    _named_resnet,
  ),
  Family(rf"resnet(\d+){FACTOR}", "resnet<6n+2>, as in resnet8, resnet20 or resnet8x4", _named_cifar_resnet),
  Family(r"wrn-(\d+)-(\d+)", "wrn-<6n+4>-<factor>, as in wrn-16-2", _named_wide_resnet),
)
