"""All networks of `tf_keras.applications`, as Keras builds them, from images to logits."""

import functools
import itertools
import re

import tensorflow as tf
import tf_keras as keras

from tfkd.models.family import Family
from tfkd.preprocessing import HALVES, IMAGENET, Preprocessing

layers = keras.layers
_PREFIX = "keras-"
# Number of classes of the published weights.
_CLASSES = 1000
# Caffe's means, of red, green and blue in this order.
_CAFFE = r"ResNet(?:50|101|152)|VGG(?:16|19)"
# What published weights expect, by names of networks.
_PREPROCESSING = (
  (_CAFFE, Preprocessing(224, 255.0, (123.68, 116.779, 103.939), 1.0)),
  (r"EfficientNetV2[SML]", Preprocessing(224, 255.0, 128.0, 128.0)),
  (r"RegNet\w+", Preprocessing(224)),
  (r"ConvNeXt\w+|DenseNet\w+|EfficientNet\w+|ResNetRS\w+", IMAGENET),
  (r"Inception\w+|MobileNet\w*|NASNet\w+|ResNet\w+V2|Xception", HALVES),
)


def application(
  network: str,
  num_classes: int = _CLASSES,
  input_shape: tuple[int, int, int] = (224, 224, 3),
  weights: str | None = None,
  name: str | None = None,
) -> keras.Model:
  """Builds a network of `tf_keras.applications` that returns logits.

  Layers have Keras' names, except the input of the last layer, `embedding`, and the last layer, `logits`. The layers
  for scaling pixels that Keras puts in front of some networks are left out: `build("keras-EfficientNetB0@224", ...)`
  computes what the published weights expect from images in [0, 1], in which red comes first, for every network.
  tf_keras 2.21 cannot read files of its ConvNeXt networks, which therefore fit no sweep.

  Args:
    network: name of the function in `tf_keras.applications`, such as "EfficientNetB0".
    num_classes: size of the output, >= 2.
    input_shape: (height, width, channels). Most networks need 32 pixels.
    weights: "imagenet" lets Keras download its weights. With 1,000 classes all layers have them, otherwise all layers
      up to the last feature map; the layers behind it are new. None draws all weights and reads nothing.
    name: name of the model; by default Keras' name.

  Returns:
    A `tf_keras` functional model from images to logits [batch, num_classes].

  Raises:
    ValueError: unknown network or weights, fewer than two classes, or a shape that Keras or the weights do not support.
  """
  if network not in _networks():
    raise ValueError(f"tf_keras.applications has no network {network!r}: expected one of {', '.join(_networks())}.")
  if weights not in (None, "imagenet"):
    raise ValueError(f"weights must be None or 'imagenet'; got {weights!r}.")
  if num_classes < 2:
    raise ValueError(f"num_classes must be at least 2; got {num_classes}.")
  build = getattr(keras.applications, network)
  whole = build(
    include_top=True, weights=None, input_shape=input_shape, classes=num_classes, classifier_activation=None
  )
  head = next(layer for layer in reversed(whole.layers) if layer.weights)
  # Some networks classify by a convolution of a map of one pixel.
  x = layers.Flatten(name="embedding")(head.input)
  # Losses read float32 logits under mixed precision too.
  logits = layers.Dense(num_classes, dtype="float32", name="logits")
  model = keras.Model(_scaled_images(whole), logits(x), name=name or whole.name)
  if weights:
    _copy_weights(_published(build, num_classes, input_shape), model, network)
  return model


def _published(build, num_classes, input_shape):
  if num_classes == _CLASSES:
    # Keras accepts only the published size with the last layers. Convolutions have the same weights for every size.
    return build(include_top=True, weights="imagenet")
  return build(include_top=False, weights="imagenet", input_shape=input_shape)


def _scaled_images(model):
  """The output of the last of the layers in front that scale pixels, or the model's input."""
  scaling = (layers.InputLayer, layers.Rescaling, layers.Normalization)
  return list(itertools.takewhile(lambda layer: isinstance(layer, scaling), model.layers))[-1].output


def _copy_weights(source, model, network):
  """Copies Keras' weights, whose layers are the first of the model's, in the same order."""
  values = [w for layer in source.layers if not isinstance(layer, layers.Normalization) for w in layer.weights]
  for variable, value in zip(model.weights[: len(values)], values, strict=True):
    if tf.size(value) != tf.size(variable):
      raise ValueError(
        f"the ImageNet weights of {network} have {tuple(value.shape)} where images of {model.input_shape[1:]} need "
        f"{tuple(variable.shape)}: expected images of {source.input_shape[1:]} or another number of classes than "
        f"{_CLASSES}, which drops the last layers."
      )
    variable.assign(tf.reshape(value, variable.shape))
  if re.fullmatch(_CAFFE, network):
    # Caffe's first channel is blue.
    kernel = next(layer for layer in model.layers if isinstance(layer, layers.Conv2D)).kernel
    kernel.assign(kernel[:, :, ::-1])


@functools.cache
def _networks():
  return tuple(n for n in dir(keras.applications) if n[0].isupper() and callable(getattr(keras.applications, n)))


def _named(match):
  return functools.partial(application, match[1]) if match[1] in _networks() else None


FAMILIES = tuple(
  Family(
    rf"{_PREFIX}({names})",
    f"{_PREFIX}<network of tf_keras.applications>, as in {_PREFIX}EfficientNetB0",
    _named,
    preprocessing,
    ("imagenet",),
  )
  for names, preprocessing in _PREPROCESSING
)
