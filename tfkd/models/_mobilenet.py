"""MobileNetV1 and MobileNetV2 of `tf_keras.applications`, with a stem for small images."""

import functools

import tf_keras as keras

from tfkd.models.classifier import classifier
from tfkd.models.family import FACTOR, Family
from tfkd.models.resnet import usual_stem
from tfkd.preprocessing import HALVES

layers = keras.layers
# Keras' 0.99 and 0.999 would need about 500 and 5,000 steps before evaluation sees the statistics that training saw.
_MOMENTUM = 0.9
_SMALLEST = 32


def mobilenet(
  num_classes: int = 1000,
  input_shape: tuple[int, int, int] = (224, 224, 3),
  factor: float = 1.0,
  stem: str = "imagenet",
  weights: str | None = None,
  name: str | None = None,
) -> keras.Model:
  """MobileNetV1 (Howard et al. 2017, arXiv:1704.04861); see `mobilenet_v2`. 4,231,976 trainable weights are its own."""
  return _mobilenet(keras.applications.MobileNet, "mobilenet", num_classes, input_shape, factor, stem, weights, name)


def mobilenet_v2(
  num_classes: int = 1000,
  input_shape: tuple[int, int, int] = (224, 224, 3),
  factor: float = 1.0,
  stem: str = "imagenet",
  weights: str | None = None,
  name: str | None = None,
) -> keras.Model:
  """Builds MobileNetV2, with 3,504,872 weights, 3,470,760 of them trainable, for 1,000 classes.

  Layers have Keras' names up to the last feature map; then `embedding`, the mean over positions, and `logits` follow,
  without dropout. The momentum of batch normalisation is 0.9.
  Source: Sandler et al. 2018, arXiv:1801.04381.

  Args:
    num_classes: size of the output, >= 2.
    input_shape: (height, width, channels), of at least 32 x 32 pixels, or 16 x 16 with the CIFAR stem.
    factor: multiplies the channels of all layers; the last feature map of MobileNetV2 has at least 1,280.
    stem: "imagenet", whose first convolution halves height and width, or "cifar", whose first convolution does not.
    weights: "imagenet" lets Keras download its weights for all layers but `logits`. Keras has those of factors 0.25,
      0.5, 0.75 and 1 of MobileNetV1, and of 0.35, 0.5, 0.75, 1, 1.3 and 1.4 of MobileNetV2. None draws all weights.
    name: name of the model; by default mobilenet or mobilenet_v2, with x<factor>.

  Returns:
    A `tf_keras` functional model from images to logits [batch, num_classes].

  Raises:
    ValueError: unknown stem or weights, fewer than two classes, images that are too small, or a factor that leaves no
      channels or has no weights.
  """
  return _mobilenet(
    keras.applications.MobileNetV2, "mobilenet_v2", num_classes, input_shape, factor, stem, weights, name
  )


def _mobilenet(build, family, num_classes, input_shape, factor, stem, weights, name):
  if stem not in ("cifar", "imagenet"):
    raise ValueError(f"unknown stem {stem!r}: expected one of cifar, imagenet.")
  if num_classes < 2:
    raise ValueError(f"num_classes must be at least 2; got {num_classes}.")
  if not _has_channels(factor):
    raise ValueError(f"factor must be at least 1/32, so that every layer has channels; got {factor}.")
  height, width, channels = input_shape
  halving = 2 if stem == "cifar" else 1
  if min(height, width) < _SMALLEST // halving:
    raise ValueError(
      f"height and width must be at least {_SMALLEST // halving} with the {stem} stem; got input_shape={input_shape}."
    )
  # Keras pads by the parity of each map's size. Behind a stem without stride these are the maps of twice the size.
  published = build(
    input_shape=(halving * height, halving * width, channels), alpha=factor, include_top=False, weights=weights
  )
  inputs = keras.Input(input_shape, name="images")
  stem_layer = next(layer.name for layer in published.layers if isinstance(layer, layers.Conv2D))

  def cloned(layer):
    config = layer.get_config()
    if layer.name == stem_layer and stem == "cifar":
      config["strides"] = (1, 1)
    if isinstance(layer, layers.BatchNormalization):
      config["momentum"] = _MOMENTUM
    return type(layer).from_config(config)

  body = keras.models.clone_model(published, inputs, cloned)
  body.set_weights(published.get_weights())
  default = family + (f"x{factor:g}" if factor != 1 else "")
  return classifier(body.input, body.output, num_classes, name or default)


def _has_channels(factor):
  """Whether the narrowest layer, of 32 channels, has any left."""
  return int(32 * factor) > 0


def _named(function, match):
  factor = float(match["factor"] or 1)
  if not _has_channels(factor):
    return None

  def build(num_classes, input_shape, weights=None):
    return function(num_classes, input_shape, factor, usual_stem(input_shape), weights, match[0])

  return build


FAMILIES = tuple(
  Family(
    f"{function.__name__}{FACTOR}",
    f"{function.__name__} or {function.__name__}x<factor of the channels>, as in {function.__name__}x{example}",
    functools.partial(_named, function),
    HALVES,
    ("imagenet",),
  )
  for function, example in ((mobilenet, 0.25), (mobilenet_v2, 0.35))
)
