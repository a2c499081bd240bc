"""Finds every layer that a scheme cannot quantize, before any is."""

import tf_keras as keras
from tensorflow_model_optimization.python.core.quantization.keras import quantize_wrapper

from tfkd.quantization.decompose import activation_name, is_split
from tfkd.quantization.low_bit import is_relu, kernel_name

layers = keras.layers
_TO_INPUT_PIPELINE = (
  layers.Rescaling, layers.Normalization, layers.Resizing, layers.CenterCrop, layers.RandomCrop, layers.RandomFlip,
  layers.RandomRotation, layers.RandomZoom, layers.RandomTranslation, layers.RandomContrast, layers.RandomBrightness,
)  # fmt: skip
_ACTIVATIONS = ("linear", "relu", "relu6", "softmax", "sigmoid", "tanh", "swish", "silu", "gelu")
_ONE_DIMENSION = (layers.Conv1D, layers.SeparableConv1D, layers.DepthwiseConv1D, layers.Conv1DTranspose)
_TRAINING_ONLY = (layers.GaussianNoise, layers.GaussianDropout, layers.AlphaDropout)
# Layers without weights that keep features on their grid, or compute on it as a float file does.
_NO_ACTIVATION = (
  layers.InputLayer, layers.Flatten, layers.Reshape, layers.Permute, layers.RepeatVector, layers.Dropout,
  layers.SpatialDropout1D, layers.SpatialDropout2D, layers.SpatialDropout3D, layers.GaussianNoise,
  layers.GaussianDropout, layers.AlphaDropout, layers.ActivityRegularization, layers.Masking,
  layers.ZeroPadding1D, layers.ZeroPadding2D, layers.Cropping1D, layers.Cropping2D, layers.UpSampling1D,
  layers.UpSampling2D, layers.MaxPooling1D, layers.MaxPooling2D, layers.AveragePooling1D, layers.AveragePooling2D,
  layers.GlobalMaxPooling1D, layers.GlobalMaxPooling2D, layers.GlobalAveragePooling1D, layers.GlobalAveragePooling2D,
  layers.Add, layers.Subtract, layers.Average, layers.Maximum, layers.Minimum, layers.Concatenate,
)  # fmt: skip


def check_quantizable(model, bits, registry, float_layers=()):
  """Raises one ValueError that names every obstacle to quantizing a model and what to do about each.

  Args:
    model: the float model.
    bits: `Bits` of the scheme.
    registry: tfmot `QuantizeRegistry` of the scheme.
    float_layers: names of layers that stay in float.

  Raises:
    TypeError: float_layers is one string.
    ValueError: with a line for each layer.
  """
  _check_model(model)
  if isinstance(float_layers, str):
    raise TypeError(f"float_layers must be a list of names of layers; got {float_layers!r}: use [{float_layers!r}].")
  names = [layer.name for layer in model.layers]
  problems = [
    f"float_layers names '{n}', but the model's layers are {', '.join(names)}" for n in float_layers if n not in names
  ]
  for layer in model.layers:
    if layer.name in float_layers:
      continue
    problem = _universal(layer) or (_low_bit(layer) if bits.is_low else _integer(layer, bits, registry))
    if problem:
      problems.append(f"'{layer.name}' ({type(layer).__name__}): {problem}")
  if not problems and not any(
    layer.weights for layer in model.layers if not isinstance(layer, layers.BatchNormalization)
  ):
    problems.append("it has no layer with a kernel to round")
  if bits.is_low and not problems and not any(is_relu(x) for x in model.layers if x.name not in float_layers):
    problems.append(f"it has no ReLU, whose features {bits} rounds to {bits.features} bits; add one, or use w8a8")
  if problems:
    alternative = (
      ""
      if bits.is_low
      else "\nOr quantize the whole network after its training: "
      "tfkd.deploy.to_tflite(model, path, representative_data=...)."
    )
    raise ValueError(f"model '{model.name}' cannot be quantized as {bits}:\n  " + "\n  ".join(problems) + alternative)


def _check_model(model):
  """Raises where a model as a whole is none that can be quantized."""
  if not isinstance(model, keras.Model) or not (isinstance(model, keras.Sequential) or model._is_graph_network):
    raise ValueError(
      f"only functional and Sequential tf_keras models can be quantized; got {type(model).__module__}."
      f"{type(model).__name__}. Rebuild it with `keras.Model(inputs, outputs)` of tf_keras."
    )
  if not model.built or not model.inputs:
    raise ValueError(
      f"model '{model.name}' has no input shape yet: call `model.build((None, height, width, channels))`."
    )
  if any(isinstance(layer, quantize_wrapper.QuantizeWrapper) for layer in model.layers):
    raise ValueError(f"model '{model.name}' is quantized already: give quantize() the float model that it was made of.")


def _universal(layer):
  """What no scheme can do."""
  if isinstance(layer, keras.Model):
    return "a model inside the model; build it on the outer model's tensors (`input_tensor=` of tf_keras.applications)"
  if not isinstance(layer, layers.InputLayer) and layer.compute_dtype != "float32":
    return f"computes in {layer.compute_dtype}; build the student under the float32 policy (the teacher may be mixed)"
  if type(layer).__name__ in ("TFOpLambda", "SlicingOpLambda"):
    return "a bare TensorFlow operation; use a layer such as Add or Concatenate, or keep it in float with float_layers"
  if isinstance(layer, layers.Lambda):
    return "a Lambda layer; use a built-in layer, or keep it in float with float_layers"
  return None


def _integer(layer, bits, registry):
  if isinstance(layer, (layers.InputLayer, *_TRAINING_ONLY)):
    return None
  if isinstance(layer, _TO_INPUT_PIPELINE):
    return "belongs into the input pipeline; apply it with `dataset.map`, or keep it in float with float_layers"
  if isinstance(layer, _ONE_DIMENSION):
    return (
      "convolutions of one dimension have no 8-bit form in tfmot; put Reshape((1, steps, channels)) before and use its "
      "twin of two dimensions, with kernel (1, size)"
    )
  if isinstance(layer, layers.BatchNormalization):
    return _normalization(layer)
  if isinstance(layer, layers.ReLU):
    return _relu(layer)
  if isinstance(layer, layers.Conv2DTranspose) and bits.weights <= 4:
    return (
      "LiteRT has no transposed convolution of int4 weights; use w5a8 or more, UpSampling2D and Conv2D, or float_layers"
    )
  activation = getattr(layer, "activation", None)
  if activation is not None and activation_name(activation) not in _ACTIVATIONS:
    return f"activation {activation_name(activation)} has no 8-bit form; use one of {', '.join(_ACTIVATIONS)}"
  if is_split(layer) and layer.activity_regularizer is not None:
    return (
      f"its activation {activation_name(activation)} becomes a layer without the activity_regularizer; leave that out "
      "and put ActivityRegularization(l1, l2) behind the layer"
    )
  if isinstance(layer, layers.SeparableConv2D) or registry.supports(layer):
    return None
  return "tfmot has no 8-bit form of this layer; replace it, or keep it in float with float_layers"


def _normalization(layer):
  axes = layer.axis if isinstance(layer.axis, (list, tuple)) else [layer.axis]
  last = layer.inbound_nodes[0].outputs.shape.rank - 1
  return None if list(axes) == [last] else f"normalises axes {list(axes)}; only the last, {last}, has an 8-bit form"


def _relu(layer):
  if layer.threshold:
    return "a ReLU with a threshold has no 8-bit form; use one without"
  if layer.max_value not in (None, 6.0) or layer.max_value and layer.negative_slope:
    return (
      f"LiteRT has no ReLU of max_value={layer.max_value} and negative_slope={layer.negative_slope}; use ReLU(), "
      "ReLU(6.0) or LeakyReLU"
    )
  return None


def _low_bit(layer):
  is_linear = getattr(layer, "activation", keras.activations.linear) is keras.activations.linear
  if layer.weights and not kernel_name(layer) and not isinstance(layer, layers.BatchNormalization):
    return (
      "its weights have no low-bit form (Conv2D, DepthwiseConv2D and Dense have); keep it in float with float_layers"
    )
  keeps_features = isinstance(layer, (*_NO_ACTIVATION, layers.BatchNormalization, layers.Activation))
  if is_relu(layer) or is_linear and (keeps_features or kernel_name(layer)):
    return None
  return "only ReLU's features are rounded, to steps in [0, 1]; use ReLU, or keep the layer in float with float_layers"
