"""Layers of Keras 3 and their counterparts in `tf_keras`."""

from collections.abc import Callable
from typing import Any

import tf_keras as keras

from tfkd.keras3 import config, substitutes
from tfkd.keras3.config import NotConvertible

Convert = Callable[[Any], keras.layers.Layer]

# Classes of the same name and meaning.
SAME = frozenset(
  """Activation ActivityRegularization Add AdditiveAttention AlphaDropout Attention Average AveragePooling1D
  AveragePooling2D AveragePooling3D BatchNormalization CategoryEncoding CenterCrop Concatenate Conv1D Conv1DTranspose
  Conv2D Conv2DTranspose Conv3D Conv3DTranspose ConvLSTM1D ConvLSTM2D ConvLSTM3D Cropping1D Cropping2D Cropping3D Dense
  DepthwiseConv1D DepthwiseConv2D Discretization Dot Dropout ELU EinsumDense Embedding Flatten GRU GRUCell GaussianDropout
  GaussianNoise GlobalAveragePooling1D GlobalAveragePooling2D GlobalAveragePooling3D GlobalMaxPooling1D
  GlobalMaxPooling2D GlobalMaxPooling3D GroupNormalization Hashing HashedCrossing Identity LSTM LSTMCell
  LayerNormalization Masking MaxPooling1D MaxPooling2D MaxPooling3D Maximum Minimum MultiHeadAttention Multiply
  Normalization PReLU Permute RandomBrightness RandomContrast RandomCrop RandomFlip RandomRotation RandomTranslation
  RandomZoom ReLU RepeatVector Rescaling Reshape Resizing SeparableConv1D SeparableConv2D SimpleRNN SimpleRNNCell Softmax
  SpatialDropout1D SpatialDropout2D SpatialDropout3D Subtract UnitNormalization UpSampling1D UpSampling2D UpSampling3D
  ZeroPadding1D ZeroPadding2D ZeroPadding3D""".split()
)


def _leaky_relu(layer, convert):
  del convert
  return keras.layers.LeakyReLU(alpha=float(layer.negative_slope), **config.base(layer))


def _activation(layer, convert):
  del convert
  name = getattr(layer.activation, "__name__", None)
  if name == "relu6":
    return keras.layers.ReLU(6.0, **config.base(layer))
  if name == "leaky_relu":
    return keras.layers.LeakyReLU(0.2, **config.base(layer))
  return _same(layer)


def _wrapped(**parts: str):
  """A converter of a layer around others: `parts` maps arguments to attributes with a layer or a list of layers."""

  def make(layer, convert):
    target = getattr(keras.layers, type(layer).__name__)
    given = layer.get_config()
    given["dtype"] = config.base(layer)["dtype"]
    for argument in parts:
      given.pop(argument)
    given = config.entries(given, config.constructor_defaults(type(layer)), target)
    for argument, attribute in parts.items():
      value = getattr(layer, attribute)
      given[argument] = [convert(one) for one in value] if isinstance(value, list | tuple) else convert(value)
    return target(**given)

  return make


def _bidirectional(layer, convert):
  forward, backward = (convert(part) for part in (layer.forward_layer, layer.backward_layer))
  for part, prefix in ((forward, "forward_"), (backward, "backward_")):
    part._name = part.name.removeprefix(prefix)  # The constructor adds it.
  given = [{**part.get_config(), "name": None, "go_backwards": None} for part in (forward, backward)]
  other = None if given[0] == given[1] else backward
  return keras.layers.Bidirectional(forward, merge_mode=layer.merge_mode, backward_layer=other, **config.base(layer))


def _lookup(layer, convert):
  del convert
  target = getattr(keras.layers, type(layer).__name__)
  given = layer.get_config()
  given["dtype"] = None
  given["vocabulary"] = None
  given.pop("vocabulary_size", None)
  given = config.entries(given, config.constructor_defaults(type(layer)), target)
  made = target(**{name: value for name, value in given.items() if name != "dtype"})
  weights = getattr(layer, "idf_weights_const", None)
  weights = None if weights is None else list(weights.numpy())[getattr(layer, "num_oov_indices", 1) :]
  made.set_vocabulary(layer.get_vocabulary(include_special_tokens=False), idf_weights=weights)
  return made


SPECIAL: dict[str, Callable[[Any, Convert], keras.layers.Layer]] = {
  "Activation": _activation,
  "Bidirectional": _bidirectional,
  "IntegerLookup": _lookup,
  "LeakyReLU": _leaky_relu,
  "RMSNormalization": lambda layer, convert: substitutes.RMSNormalization(
    layer.axis, layer.epsilon, **config.base(layer)
  ),
  "RNN": _wrapped(cell="cell"),
  "SpectralNormalization": _wrapped(layer="layer"),
  "StackedRNNCells": _wrapped(cells="cells"),
  "StringLookup": _lookup,
  "TimeDistributed": _wrapped(layer="layer"),
}

# Layers of `keras.applications`.
APPLICATIONS: dict[str, Callable[[Any, Convert], keras.layers.Layer]] = {
  "keras.src.applications.convnext.LayerScale": lambda layer, convert: substitutes.LayerScale(
    layer.init_values, layer.projection_dim, **config.base(layer)
  ),
  "keras.src.applications.convnext.StochasticDepth": lambda layer, convert: substitutes.StochasticDepth(
    layer.drop_path_rate, **config.base(layer)
  ),
  "keras.src.applications.inception_resnet_v2.CustomScaleLayer": lambda layer, convert: substitutes.ScaledSum(
    layer.scale, **config.base(layer)
  ),
}


def _same(layer):
  target = getattr(keras.layers, type(layer).__name__)
  given = config.converted(layer, target)
  if given.get("data_format") is None:
    given.pop("data_format", None)
  return target(**given)


def converter(layer: Any, public: Any) -> Callable[[Convert], keras.layers.Layer] | None:
  """Finds how a Keras 3 layer is converted.

  Args:
    layer: Keras 3 layer.
    public: the module `keras.layers` of Keras 3. A subclass of one of its classes is another class.

  Returns:
    Function from the conversion of inner layers to the unbuilt layer; None for an unknown class.
  """
  cls = type(layer)
  path = f"{cls.__module__}.{cls.__qualname__}"
  if path in APPLICATIONS:
    return lambda convert: APPLICATIONS[path](layer, convert)
  if getattr(public, cls.__name__, None) is not cls:
    return None
  if cls.__name__ in SPECIAL:
    return lambda convert: SPECIAL[cls.__name__](layer, convert)
  return (lambda convert: _same(layer)) if cls.__name__ in SAME else None


__all__ = ["NotConvertible", "converter"]
