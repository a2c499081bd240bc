"""Models that end in softmax or sigmoid: what is known of it, and the logits before it."""

import contextlib
import functools

import tensorflow as tf

KINDS = ("softmax", "sigmoid")
# Layers and operations that give what they get in inference mode, in another shape or type, or means of it.
_TRANSPARENT = (
  "Dropout", "SpatialDropout1D", "SpatialDropout2D", "GaussianNoise", "GaussianDropout", "AlphaDropout", "Identity",
  "Reshape", "Flatten", "UpSampling1D", "UpSampling2D", "Cropping1D", "Cropping2D", "Average", "Resizing",
  "AveragePooling1D", "AveragePooling2D", "GlobalAveragePooling1D", "GlobalAveragePooling2D", "Cast", "StopGradient",
  "cast", "identity", "reshape", "stop_gradient",
)  # fmt: skip
_WRAPPERS = ("QuantizeWrapper", "QuantizeWrapperV2", "TimeDistributed", "PruneLowMagnitude")
_PASSED_ON = ("Identity", "Cast", "Reshape", "StopGradient")
_CALLS = ("PartitionedCall", "StatefulPartitionedCall")
_TINY = 1.2e-38  # The least normal float32.
# Rows of probabilities sum to 1, those of eight bits nearly; of four rows of logits that is no chance.
_OFF, _ROWS = 0.02, 4


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
  """Kind ("softmax", "sigmoid", None) of a tensor that a model gave, by the operation that made it, if in a graph."""
  if not isinstance(tensor, tf.Tensor) or not hasattr(tensor, "op"):
    return None
  operation = tensor.op
  if operation.type in _CALLS:  # Of a `tf.function`, or a SavedModel.
    function = operation.graph._get_function(operation.get_attr("f").name)
    return ending_of_tensor(function.graph.outputs[tensor.value_index]) if hasattr(function, "graph") else None
  if operation.type in _PASSED_ON:
    return ending_of_tensor(operation.inputs[0])
  return {"Softmax": "softmax", "Sigmoid": "sigmoid"}.get(operation.type)


def assert_logits(outputs, owner):
  """Tensors that end the step with an error where all rows of an output are probabilities.

  Used where no graph of layers shows it: functions, SavedModels, precomputed outputs. XLA drops assertions: compiled
  steps are not checked.

  Args:
    outputs: list of float [..., classes], those that have to be logits.
    owner: whose they are, for the message.

  Returns:
    List of tensors. The error is `tf.errors.InvalidArgumentError`.
  """
  checks = []
  for tensor in outputs:
    rows = tf.reshape(tensor, [-1, tf.shape(tensor)[-1]])
    sums = tf.reduce_sum(rows, axis=1)
    counts = sums != 0  # Of padding there may be nothing.
    are_probabilities = (
      tf.reduce_all(rows >= 0)
      & tf.reduce_all(~counts | (tf.abs(sums - 1) < _OFF))
      & (tf.math.count_nonzero(counts) >= _ROWS)
    )
    report = functools.partial(_report_probabilities, owner)
    checks.append(tf.cond(are_probabilities, report, lambda: True))
  return checks


def _report_probabilities(owner):
  found = f"{owner} gives probabilities, each row of which sums to 1, and logits are expected: "
  tf.debugging.Assert(False, [found + "return what is before the softmax, or the logarithm, tf.math.log(p + 1e-7)."])
  return False


class LogitsBeforeSoftmax:
  """Calls a model and returns, for each output that ends in softmax, the tensor before it.

  The layers that end in softmax keep what they are given during the call; the model and what its layers give stay the
  same. Where that tensor does not reach the output as it is (another layer reshapes the probabilities, say), the
  output is the logarithm of the probabilities, which are logits as well.

  Args:
    model: a `tf_keras` or Keras 3 model, or any other function, of which in a graph the last operation is looked at.
  """

  def __init__(self, model):
    self._model = model
    self._endings = endings(model)
    self._converts = self._endings is None or not {"softmax", None}.isdisjoint(self._endings)
    self.is_known = self._endings is not None and "softmax" in self._endings

  def __call__(self, call):
    """`call()` runs the model, and gives its outputs."""
    if not self._converts:
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
  if ending == "softmax" or ending is None and ending_of_tensor(output) == "softmax":
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
      vars(layer)[attribute] = _recorder(layer, getattr(layer, attribute), found)
  try:
    yield found
  finally:
    for layer, attribute, original in replaced:
      if original is None:
        del vars(layer)[attribute]
      else:
        vars(layer)[attribute] = original


def _recorder(layer, function, found):
  @tf.autograph.experimental.do_not_convert
  def recorded(*args, **kwargs):
    outputs = function(*args, **kwargs)
    logits, *others = *args, *kwargs.values()
    is_masked = any(tf.is_tensor(other) for other in others)
    if not is_masked and _is_over_last_axis(layer, args, kwargs, outputs.shape):
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
    waiting += getattr(layer, "_quantize_activations", ())  # tfmot puts these into the wrapped layer at every call.
  return list(seen.values())


def _softmax_attribute(layer):
  """Name of the attribute of a layer that computes a softmax, or None."""
  if type(layer).__name__ in _WRAPPERS or _kind_of_layer(layer) != "softmax":
    return None
  return "activation" if hasattr(layer, "activation") else "call"


def _ending(tensor):
  layer, node_index, tensor_index = tensor._keras_history[:3]
  if hasattr(layer, "outputs") and getattr(layer, "layers", None):  # A nested model.
    return _ending(layer.outputs[tensor_index])
  inner = _unwrapped(layer)
  if inner is not layer and getattr(inner, "outputs", None):  # A model for each time step.
    return _ending(inner.outputs[0])
  kind = _kind_of_layer(layer)
  if kind == "softmax" and not _is_over_last_axis(layer, *_arguments(layer, node_index), tensor.shape):
    return None
  if kind or not _is_transparent(layer):
    return kind or _values_or_nothing(layer)
  inputs = tf.nest.flatten(_inputs(layer, node_index))
  kinds = {_ending(t) if hasattr(t, "_keras_history") else None for t in inputs}
  return kinds.pop() if len(kinds) == 1 else None


def _is_over_last_axis(layer, args, kwargs, shape):
  """Whether neither a softmax layer nor the arguments of its call name another axis."""
  axes = tf.nest.flatten([*args[1:2], kwargs.get("axis"), getattr(layer, "axis", None)])
  axes = [axis for axis in axes if isinstance(axis, int)]
  rank = tf.TensorShape(shape).rank
  return all(axis == -1 or rank is not None and axis == rank - 1 for axis in axes)


def _arguments(layer, node_index):
  node = layer._inbound_nodes[node_index]
  arguments = getattr(node, "arguments", None)  # Keras 3's.
  return (arguments.args, arguments.kwargs) if arguments else (node.call_args, node.call_kwargs)


def _inputs(layer, node_index):
  node = layer._inbound_nodes[node_index]
  return node.keras_inputs if hasattr(node, "keras_inputs") else node.input_tensors


def _kind_of_layer(layer):
  """Kind of a layer: "softmax", "sigmoid" or None."""
  layer = _unwrapped(layer)
  name = type(layer).__name__
  if name == "Softmax":
    return "softmax"
  if name == "Sigmoid":  # Keras 3's operation.
    return "sigmoid"
  found = _function_name(layer)
  found = {"softmax_v2": "softmax", "softmax": "softmax", "sigmoid": "sigmoid"}.get(found)
  if found and not _is_of_elements(layer):
    return None
  return found


def _function(layer):
  """The function that a layer computes last, or None."""
  is_of_function = type(layer).__name__ in ("TFOpLambda", "Lambda")
  function = getattr(layer, "function" if is_of_function else "activation", None)
  return getattr(function, "activation", function)  # tfmot's quantized activations hold the function.


def _function_name(layer):
  function = _function(layer)
  return None if function is None else getattr(function, "__name__", type(function).__name__.lower())


def _is_of_elements(layer):
  """Whether a layer's `activation` is applied to what it gives last; that of a recurrent cell is not."""
  return not any(base.__name__ in ("RNN", "LSTMCell", "GRUCell", "SimpleRNNCell") for base in type(layer).__mro__)


def _is_transparent(layer):
  name = type(layer).__name__
  if name == "TFOpLambda":
    return _function_name(layer) in _TRANSPARENT
  return name == "Activation" and _function_name(layer) == "linear" or name in _TRANSPARENT


def _values_or_nothing(layer):
  """Kind "values" for layers that are known not to end in probabilities."""
  layer = _unwrapped(layer)
  known = ("Dense", "Conv", "Add", "BatchNormalization", "LayerNormalization", "MaxPooling", "ReLU")
  is_known = any(part in type(layer).__name__ for part in known)
  # An activation of one's own can be anything.
  module = getattr(_function(layer), "__module__", None) or "keras"
  return "values" if is_known and module.startswith(("keras", "tf_keras", "tensorflow.python")) else None


def _unwrapped(layer):
  """The layer that tfmot's or Keras' wrappers hold."""
  while type(layer).__name__ in _WRAPPERS:
    layer = layer.layer
  return layer
