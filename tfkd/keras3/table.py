"""Layers of Keras 3 and their counterparts in `tf_keras`."""

from collections.abc import Callable
from typing import Any

import tf_keras as keras

from tfkd.keras3 import config, substitutes
from tfkd.keras3.config import NotConvertible

Convert = Callable[[Any], keras.layers.Layer]

# Classes of the same name and meaning.
_SAME = """
  Activation ActivityRegularization Add AdditiveAttention AlphaDropout Attention Average AveragePooling1D
  AveragePooling2D AveragePooling3D BatchNormalization CategoryEncoding CenterCrop Concatenate Conv1D
  Conv1DTranspose Conv2D Conv2DTranspose Conv3D Conv3DTranspose ConvLSTM1D ConvLSTM2D ConvLSTM3D Cropping1D
  Cropping2D Cropping3D Dense DepthwiseConv1D DepthwiseConv2D Discretization Dot Dropout ELU EinsumDense
  Embedding Flatten GRU GRUCell GaussianDropout GaussianNoise GlobalAveragePooling1D GlobalAveragePooling2D
  GlobalAveragePooling3D GlobalMaxPooling1D GlobalMaxPooling2D GlobalMaxPooling3D GroupNormalization Hashing
  HashedCrossing Identity LSTM LSTMCell LayerNormalization Masking MaxPooling1D MaxPooling2D MaxPooling3D
  Maximum Minimum MultiHeadAttention Multiply Normalization PReLU Permute RandomBrightness RandomContrast
  RandomFlip RandomRotation RandomTranslation RandomZoom ReLU RepeatVector Rescaling Reshape Resizing
  SeparableConv1D SeparableConv2D SimpleRNN SimpleRNNCell Softmax SpatialDropout1D SpatialDropout2D
  SpatialDropout3D Subtract UnitNormalization UpSampling1D UpSampling2D UpSampling3D ZeroPadding1D ZeroPadding2D
  ZeroPadding3D
"""
SAME = frozenset(_SAME.split())


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
    name = type(layer).__name__
    target = getattr(substitutes, name, None) or getattr(keras.layers, name)
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


def _adaptive(mode):
  def make(layer, convert):
    del convert
    size = layer.output_size
    size = size if isinstance(size, int) else [int(one) for one in size]
    return substitutes.AdaptivePooling(size, mode, layer.data_format, **config.base(layer))

  return make


def _grouped_query_attention(layer, convert):
  del convert
  given = layer.get_config()
  names = [f"{part}_{kind}" for part in ("kernel", "bias") for kind in ("initializer", "regularizer", "constraint")]
  dense = {name: config.entry(name, given.pop(name)) for name in names}
  given["dtype"] = config.base(layer)["dtype"]
  given = config.entries(given, config.constructor_defaults(type(layer)), substitutes.GroupedQueryAttention)
  return substitutes.GroupedQueryAttention(**given, dense={k: v for k, v in dense.items() if v is not None})


# Why a layer of Keras 3 has no counterpart, and what to do; each continues "layer 'name' (Class) ".
_AUGMENTATION = "is an augmentation that tf_keras lacks: take it out of the model, and apply it to the data set"
_FOREIGN = "holds a model of another library: convert that model to Keras, or take it as a teacher, without conversion"
_AUGMENTATIONS = """
  AugMix AutoContrast ContrastLimitedAdaptiveHistogramEqualization CutMix Equalization MixUp RandAugment
  RandomColorDegeneration RandomColorJitter RandomElasticTransform RandomErasing RandomGaussianBlur RandomGrayscale
  RandomHue RandomInvert RandomPerspective RandomPosterization RandomSaturation RandomSharpness RandomShear Solarization
"""
REFUSED = {
  **dict.fromkeys(_AUGMENTATIONS.split(), _AUGMENTATION),
  **dict.fromkeys(("FlaxLayer", "JaxLayer", "TFSMLayer", "TorchModuleWrapper"), _FOREIGN),
  "Lambda": "holds a Python function: write it with keras.ops in the graph, or pass layers={Lambda: convert}",
  "MaxNumBoundingBoxes": "pads boxes, not features: take it out of the model, and apply it to the data set",
  "MelSpectrogram": "has no counterpart in tf_keras: compute the spectrograms in the data set",
  "Pipeline": "is a list of preprocessing layers: put them into the model one by one, or into a Sequential model",
  "RandomCrop": "crops in training only, and the layer of that name in tf_keras always: apply it to the data set",
  "ReversibleEmbedding": "has no counterpart in tf_keras: use an Embedding, and a Dense layer for its reverse",
  "STFTSpectrogram": "has no counterpart in tf_keras: compute the spectrograms in the data set",
}

SPECIAL: dict[str, Callable[[Any, Convert], keras.layers.Layer]] = {
  "Activation": _activation,
  **{f"AdaptiveAveragePooling{n}D": _adaptive("mean") for n in (1, 2, 3)},
  **{f"AdaptiveMaxPooling{n}D": _adaptive("max") for n in (1, 2, 3)},
  "Bidirectional": _bidirectional,
  "GroupQueryAttention": _grouped_query_attention,
  "IntegerLookup": _lookup,
  "LeakyReLU": _leaky_relu,
  "RMSNormalization": lambda layer, convert: substitutes.RMSNormalization(
    layer.axis, layer.epsilon, **config.base(layer)
  ),
  "RNN": _wrapped(cell="cell"),
  "SpectralNormalization": _wrapped(layer="layer"),
  "StackedRNNCells": _wrapped(cells="cells"),
  "StringLookup": _lookup,
  "TextVectorization": _lookup,
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
  name = public_name(cls, public)
  if name in REFUSED:
    raise NotConvertible(REFUSED[name])
  if name in SPECIAL:
    return lambda convert: SPECIAL[name](layer, convert)
  return (lambda convert: _same(layer)) if name in SAME else None


def public_name(cls: type, public: Any) -> str | None:
  """Name of a class in `keras.layers`; None for a class that is not there, such as a subclass of one that is."""
  if getattr(public, cls.__name__, None) is cls:
    return cls.__name__
  return next((name for name in dir(public) if getattr(public, name) is cls), None)
