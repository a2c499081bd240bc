"""Models that end in softmax or sigmoid: what is known of it, and the logits before it."""

import contextlib

import tensorflow as tf

KINDS = ("softmax", "sigmoid")
# Layers that give what they get, in inference mode or in another shape.
_TRANSPARENT = (
  "Dropout", "SpatialDropout1D", "SpatialDropout2D", "GaussianNoise", "GaussianDropout", "AlphaDropout", "Identity",
  "Reshape", "Flatten", "UpSampling1D", "UpSampling2D", "Cropping1D", "Cropping2D", "Average", "TimeDistributed",
)  # fmt: skip
_TINY = 1.2e-38  # The least normal float32.


def endings(model):
  """What each output of a model ends in.

  Args:
    model: a `tf_keras` or Keras 3 model, or anything else.

  Returns:
    List in the order of `tf.nest.flatten(outputs)`: "softmax", "sigmoid", "values" where the last layer is known to
    give something else, or None where nothing is known. None for the whole list where there is no graph of layers.
  """
  outputs = getattr(model, "outputs", None)
  if not outputs or not hasattr(outputs[0], "_keras_history"):
    return None
  return [_ending(tensor) for tensor in outputs]


def ending_of_tensor(tensor):
  """Kind ("softmax", "sigmoid", None) of a tensor that a model gave, by the operation that made it."""
  if hasattr(tensor, "op"):
    kind = {"Softmax": "softmax", "Sigmoid": "sigmoid"}.get(tensor.op.type)
    if kind or tensor.op.type not in ("Identity", "Cast", "Reshape"):
      return kind
    return ending_of_tensor(tensor.op.inputs[0])
  return "softmax" if getattr(tensor, "_keras_logits", None) is not None and tensor.shape[-1] != 1 else None


class LogitsBeforeSoftmax:
  """Calls a model and returns, for each output that ends in softmax, the tensor before it.

  The layers that end in softmax keep what they are given during the call; the model and what its layers give stay the
  same. Where that tensor does not reach the output as it is (another layer reshapes the probabilities, say), the
  output is the logarithm of the probabilities, which are logits as well.

  Args:
    model: a `tf_keras` or Keras 3 model; any other function is called as it is.
  """

  def __init__(self, model):
    self._model = model
    self._endings = endings(model)
    is_model = hasattr(model, "layers")
    self.converts = is_model and (self._endings is None or "softmax" in self._endings)
    self.is_known = self._endings is not None and "softmax" in self._endings

  def __call__(self, call):
    """`call()` runs the model, and gives its outputs."""
    if not self.converts:
      return call()
    with _recording(self._model) as found:
      outputs = call()
    known = self._endings or [None] * len(tf.nest.flatten(outputs))
    pairs = zip(tf.nest.flatten(outputs), known, strict=True)
    return tf.nest.pack_sequence_as(outputs, [_logits(output, ending, found) for output, ending in pairs])


def _logits(output, ending, found):
  for probabilities, logits in found:
    if probabilities is output:
      return logits
  if ending is None and hasattr(output, "op") and output.op.type == "Softmax":
    return output.op.inputs[0]
  if ending == "softmax":
    return tf.math.log(tf.maximum(tf.cast(output, tf.float32), _TINY))
  return output


@contextlib.contextmanager
def _recording(model):
  """Lists pairs (probabilities, logits) of all softmax functions that the model's layers call meanwhile."""
  found, replaced = [], []
  for layer in _layers(model):
    attribute = _softmax_attribute(layer)
    if attribute:
      replaced.append((layer, attribute, vars(layer).get(attribute)))
      vars(layer)[attribute] = _recorder(getattr(layer, attribute), found)
  try:
    yield found
  finally:
    for layer, attribute, original in replaced:
      if original is None:
        del vars(layer)[attribute]
      else:
        vars(layer)[attribute] = original


def _recorder(function, found):
  @tf.autograph.experimental.do_not_convert
  def recorded(*args, **kwargs):
    outputs = function(*args, **kwargs)
    logits = args[0] if args else next(iter(kwargs.values()))
    found.append((outputs, logits))
    return outputs

  return recorded


def _layers(model):
  """All layers and operations of a model, those of nested models too, each once."""
  seen, waiting = {}, [model]
  while waiting:
    layer = waiting.pop()
    if id(layer) in seen:
      continue
    seen[id(layer)] = layer
    waiting += getattr(layer, "operations", None) or ()
    waiting += layer._flatten_layers(include_self=False) if hasattr(layer, "_flatten_layers") else ()
  return list(seen.values())


def _softmax_attribute(layer):
  """Name of the attribute of a layer that computes a softmax over the last axis of its input, or None."""
  if _kind_of_layer(layer) != "softmax":
    return None
  is_function = type(layer).__name__ in ("Softmax", "TFOpLambda") or not hasattr(layer, "activation")
  return "call" if is_function else "activation"


def _ending(tensor):
  layer, node_index, tensor_index = tensor._keras_history[:3]
  if hasattr(layer, "outputs") and getattr(layer, "layers", None):  # A nested model.
    return _ending(layer.outputs[tensor_index])
  kind = _kind_of_layer(layer)
  if kind or not _is_transparent(layer):
    return kind or _values_or_nothing(layer)
  inputs = tf.nest.flatten(_inputs(layer, node_index))
  kinds = {_ending(t) if hasattr(t, "_keras_history") else None for t in inputs}
  return kinds.pop() if len(kinds) == 1 else None


def _inputs(layer, node_index):
  node = layer._inbound_nodes[node_index]
  return node.keras_inputs if hasattr(node, "keras_inputs") else node.input_tensors


def _kind_of_layer(layer):
  """Kind of a layer: "softmax" (over the last axis), "sigmoid" or None."""
  layer = _unwrapped(layer)
  name = type(layer).__name__
  if name == "Softmax":
    return "softmax" if getattr(layer, "axis", -1) in (-1, [-1], (-1,)) else None
  if name == "Sigmoid":  # Keras 3's operation.
    return "sigmoid"
  function = getattr(layer, "activation", None)
  if name in ("TFOpLambda", "Lambda"):
    function = getattr(layer, "function", None)
  function = getattr(function, "activation", function)  # tfmot's quantized activations hold the function.
  found = getattr(function, "__name__", None)
  if found is None and function is not None:
    found = type(function).__name__.lower()
  found = {"softmax_v2": "softmax", "softmax": "softmax", "sigmoid": "sigmoid"}.get(found)
  if found and not _is_of_elements(layer):
    return None
  return found


def _is_of_elements(layer):
  """Whether a layer's `activation` is applied to what it gives last; that of a recurrent cell is not."""
  return not any(base.__name__ in ("RNN", "LSTMCell", "GRUCell", "SimpleRNNCell") for base in type(layer).__mro__)


def _is_transparent(layer):
  if type(layer).__name__ == "TimeDistributed":
    return False
  is_linear = type(layer).__name__ == "Activation" and _is_linear(layer.activation)
  return is_linear or type(layer).__name__ in _TRANSPARENT


def _values_or_nothing(layer):
  """Kind "values" for layers that are known not to end in probabilities."""
  layer = _unwrapped(layer)
  known = ("Dense", "Conv", "EinsumDense", "Add", "BatchNormalization", "LayerNormalization", "Pooling", "ReLU")
  return "values" if any(part in type(layer).__name__ for part in known) else None


def _unwrapped(layer):
  """The layer that tfmot's or Keras' wrappers hold."""
  while type(layer).__name__ in ("QuantizeWrapper", "QuantizeWrapperV2", "TimeDistributed", "PruneLowMagnitude"):
    layer = layer.layer
  return layer


def _is_linear(activation):
  return getattr(activation, "__name__", None) == "linear"
