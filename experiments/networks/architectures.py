"""Networks of `keras.applications`, alone and as the base of a transfer-learning model."""

import importlib
from typing import Any, NamedTuple

LIBRARIES = ("tf_keras", "keras")
"""Names of the Python packages: Keras 2 and Keras 3."""
ALONE, TRANSFER = MODES = ("alone", "transfer")
CLASSES = 10


class Network(NamedTuple):
  """What a network expects."""

  takes_pixels: bool = False
  """Whether the network scales pixels in [0, 255] itself; the others take [-1, 1]."""
  learning_rate: float = 2e-3
  """Peak of the float training from random weights."""
  share_of_steps: float = 1.0
  """Share of the setting's training steps, less for networks that take more time."""
  least_size: int = 32
  """Least height and width of its images in pixels."""


NETWORKS = {
  "MobileNet": Network(),
  "MobileNetV2": Network(),
  "MobileNetV3Small": Network(takes_pixels=True),
  "EfficientNetB0": Network(takes_pixels=True),
  "EfficientNetV2B0": Network(takes_pixels=True),
  "ResNet50": Network(learning_rate=1e-3, share_of_steps=0.5),
  "ResNet50V2": Network(learning_rate=1e-3, share_of_steps=0.5),
  "DenseNet121": Network(share_of_steps=0.5),
  "NASNetMobile": Network(share_of_steps=0.5),
  "InceptionV3": Network(learning_rate=1e-3, share_of_steps=0.5, least_size=75),
  "Xception": Network(learning_rate=1e-3, share_of_steps=0.5, least_size=71),
  "VGG16": Network(learning_rate=1e-4, share_of_steps=0.5),
  # Its grouped convolutions are slow on CPUs.
  "ConvNeXtTiny": Network(takes_pixels=True, learning_rate=1e-3, share_of_steps=0.1),
}
_MOMENTUM = 0.9  # Keras' 0.99 and 0.999 need more steps than the trainings have.


def build(library: str, name: str, mode: str, size: int) -> Any:
  """Builds an untrained network that maps images to the logits of ten classes.

  Args:
    library: "tf_keras" or "keras".
    name: one of `NETWORKS`.
    mode: "alone", or "transfer": as a base in inference mode after random mirroring, random rotation and, if the
      network has none inside, scaling, as in the transfer-learning guide of keras.io.
    size: height and width of the images.

  Returns:
    Model of that library. Its inputs are pixels in [0, 255] if the mode is "transfer" or the network takes them, else
    in [-1, 1].
  """
  keras = importlib.import_module(library)
  make, shape = getattr(keras.applications, name), (size, size, 3)
  options = {"weights": None, "input_shape": shape}
  if mode == ALONE:
    model = make(classes=CLASSES, classifier_activation=None, **options)
    _shorten_averages(keras, model)
    return model
  base = make(include_top=False, **options)
  _shorten_averages(keras, base)
  inputs = keras.Input(shape)
  x = keras.layers.RandomFlip("horizontal")(inputs)
  x = keras.layers.RandomRotation(0.1)(x)
  if not NETWORKS[name].takes_pixels:
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(x)
  x = base(x, training=False)
  x = keras.layers.GlobalAveragePooling2D()(x)
  x = keras.layers.Dropout(0.2)(x)
  return keras.Model(inputs, keras.layers.Dense(CLASSES)(x), name=f"transfer_{name}")


def base_of(model: Any) -> Any:
  """Returns the base of a transfer-learning model."""
  return next(layer for layer in model.layers if hasattr(layer, "layers"))


def copy_weights(source: Any, target: Any) -> None:
  """Copies the weights of a model to one with the same layers, or with the first ones of them, of either library."""
  given, taken = ([layer for layer in model.layers if layer.weights] for model in (source, target))
  for one, other in zip(given[: len(taken)], taken, strict=True):
    if hasattr(one, "layers"):
      copy_weights(one, other)
    else:
      other.set_weights(one.get_weights())


def estimate_statistics(model: Any, images: Any) -> None:
  """Sets the statistics of batch normalization in a `tf_keras` model to those of one batch."""
  momenta = {layer: layer.momentum for layer in model._flatten_layers() if hasattr(layer, "moving_mean")}
  for layer in momenta:
    layer.momentum = 0.0
  model(images, training=True)
  for layer, momentum in momenta.items():
    layer.momentum = momentum


def _shorten_averages(keras: Any, model: Any) -> None:
  for layer in model._flatten_layers():
    if isinstance(layer, keras.layers.BatchNormalization):
      layer.momentum = _MOMENTUM
