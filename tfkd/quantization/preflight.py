"""Finds every layer that a scheme cannot quantize, before tfmot stops at the first with a riddle."""

import tf_keras as keras

from tfkd.quantization.low_bit import is_relu, kernel_name

layers = keras.layers
_TO_INPUT_PIPELINE = (
  layers.Rescaling, layers.Normalization, layers.Resizing, layers.CenterCrop, layers.RandomCrop, layers.RandomFlip,
  layers.RandomRotation, layers.RandomZoom, layers.RandomTranslation, layers.RandomContrast, layers.RandomBrightness,
)  # fmt: skip
_LINEAR = (layers.Conv2D, layers.DepthwiseConv2D, layers.SeparableConv2D, layers.Conv2DTranspose, layers.Dense)
_OTHER_ACTIVATIONS = (layers.LeakyReLU, layers.ELU, layers.PReLU, layers.ThresholdedReLU)
_ACTIVATIONS = ("linear", "relu", "relu6", "softmax", "sigmoid", "tanh", "swish", "gelu")


def check_quantizable(model, low_bit, registry, float_layers=()):
  """Raises one ValueError that names every obstacle to quantizing a model and what to do about each.

  Args:
    model: the float model.
    low_bit: whether features get fewer than eight bits.
    registry: tfmot `QuantizeRegistry` of the scheme.
    float_layers: names of layers that stay in float.

  Raises:
    ValueError: with a line for each layer.
  """
  if not isinstance(model, keras.Model) or not (isinstance(model, keras.Sequential) or model._is_graph_network):
    raise ValueError(
      f"only functional and Sequential tf_keras models can be quantized; got {type(model).__module__}."
      f"{type(model).__name__}. Rebuild it with `keras.Model(inputs, outputs)` of tf_keras."
    )
  if not model.built:
    raise ValueError(
      f"model '{model.name}' has no input shape yet: call `model.build((None, height, width, channels))`."
    )
  names = [layer.name for layer in model.layers]
  problems = [
    f"float_layers names '{n}', but the model's layers are {', '.join(names)}" for n in float_layers if n not in names
  ]
  for layer in model.layers:
    if layer.name in float_layers:
      continue
    problem = _universal(layer) or (_low_bit(layer) if low_bit else _eight_bit(layer, registry))
    if problem:
      problems.append(f"'{layer.name}' ({type(layer).__name__}): {problem}")
  if problems:
    raise ValueError(f"model '{model.name}' cannot be quantized:\n  " + "\n  ".join(problems))


def _universal(layer):
  """What no scheme can do."""
  if isinstance(layer, keras.Model):
    return "a model inside the model; call its layers on the outer model's tensors instead"
  if layer.compute_dtype != "float32":
    return f"computes in {layer.compute_dtype}; build the student under the float32 policy (the teacher may be mixed)"
  if type(layer).__name__ in ("TFOpLambda", "SlicingOpLambda"):
    return "a bare TensorFlow operation; use a layer (Add for `+`, ReLU for tf.nn.relu, Reshape or Cropping for slices)"
  if isinstance(layer, layers.Lambda):
    return "a Lambda layer; use a built-in layer, or move the work into the input pipeline"
  return None


def _eight_bit(layer, registry):
  if isinstance(layer, _TO_INPUT_PIPELINE):
    return "belongs into the input pipeline; apply it with `dataset.map`"
  if isinstance(layer, layers.BatchNormalization) and not _follows_linear_layer(layer):
    return (
      "must directly follow a convolution or dense layer without activation; order them convolution, batch "
      "normalisation, ReLU"
    )
  activation = getattr(layer, "activation", None)
  if activation is not None:
    name = getattr(activation, "__name__", type(activation).__name__)
    if name not in _ACTIVATIONS:
      return f"activation {name} has no 8-bit form; use one of {', '.join(_ACTIVATIONS)}"
  # tfmot folds batch normalisation, and splits SeparableConv into two layers that the registry knows.
  if isinstance(layer, (layers.InputLayer, layers.BatchNormalization, layers.SeparableConv1D, layers.SeparableConv2D)):
    return None
  if not registry.supports(layer):
    return "tfmot has no 8-bit form of this layer; replace it, or keep it in float with float_layers"
  return None


def _low_bit(layer):
  activation = getattr(layer, "activation", keras.activations.linear)
  if isinstance(layer, _OTHER_ACTIVATIONS) or not (is_relu(layer) or activation is keras.activations.linear):
    return (
      "only ReLU's features are rounded, to steps in [0, 1]; use ReLU, or keep the layer in float with float_layers"
    )
  has_other_weights = layer.weights and not isinstance(layer, layers.BatchNormalization)
  if has_other_weights and not kernel_name(layer):
    return (
      "its weights have no low-bit form (Conv2D, DepthwiseConv2D and Dense have); keep it in float with float_layers"
    )
  return None


def _follows_linear_layer(layer):
  before = layer.inbound_nodes[0].inbound_layers
  if isinstance(before, list) or not isinstance(before, _LINEAR):
    return False
  return before.activation is keras.activations.linear
