"""Models that end in softmax or sigmoid: detection, and the logits before it."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow as tf

KINDS = ("softmax", "sigmoid")
# Layers and operations that pass values through in inference mode, in another shape or type, or averaged.
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
# Rows of probabilities sum to 1, with eight bits nearly so; four rows of logits do not by chance.
_OFF, _ROWS = 0.02, 4


def endings(model: Any) -> list[str | None] | None:
  """The last activation of each output of a model.

  Args:
    model: a `tf_keras` or Keras 3 model, or anything else.

  Returns:
    List in the order of `tf.nest.flatten(outputs)`: "softmax", "sigmoid", "values" if the last layer is known to
    be neither, or None if it is unknown. None in place of the list if the model has no graph of layers.
  """
  outputs = getattr(model, "outputs", None)
  if not outputs or not hasattr(outputs[0], "_keras_history"):
    return None
  return [_ending(tensor) for tensor in outputs]


def ending_of_tensor(tensor: Any) -> str | None:
  """The last activation ("softmax", "sigmoid", None) of an output tensor, by the operation that made it in a graph."""
  if not isinstance(tensor, tf.Tensor) or not hasattr(tensor, "op"):
    return None
  operation = tensor.op
  if operation.type in _CALLS:  # A call of a `tf.function` or of a SavedModel.
    function = operation.graph._get_function(operation.get_attr("f").name)
    return ending_of_tensor(function.graph.outputs[tensor.value_index]) if hasattr(function, "graph") else None
  if operation.type in _PASSED_ON:
    return ending_of_tensor(operation.inputs[0])
  return {"Softmax": "softmax", "Sigmoid": "sigmoid"}.get(operation.type)


def assert_logits(outputs: Sequence[tf.Tensor], owner: str) -> list[tf.Tensor]:
  """Asserts that not all rows of an output are probabilities.

  Used if no graph of layers shows it: for functions, SavedModels and precomputed outputs. XLA drops assertions, so
  compiled steps are not checked.

  Args:
    outputs: float [..., classes], which have to be logits.
    owner: the model of the outputs, for the message.

  Returns:
    Tensors to depend on. A failure raises `tf.errors.InvalidArgumentError`.
  """
  checks = []
  for tensor in outputs:
    rows = tf.reshape(tensor, [-1, tf.shape(tensor)[-1]])
    sums = tf.reduce_sum(rows, axis=1)
    counts = sums != 0  # Padded rows may be all zeros.
    are_probabilities = (
      tf.reduce_all(rows >= 0)
      & tf.reduce_all(~counts | (tf.abs(sums - 1) < _OFF))
      & (tf.math.count_nonzero(counts) >= _ROWS)
    )
    report = functools.partial(_report_probabilities, owner)
    checks.append(tf.cond(are_probabilities, report, lambda: True))
  return checks


def _report_probabilities(owner: str) -> bool:
  found = f"{owner} gives probabilities, each row of which sums to 1, and logits are expected: "
  tf.debugging.Assert(False, [found + "return the input of the softmax, or the logarithm, tf.math.log(p + 1e-7)."])
  return False


class LogitsBeforeSoftmax:
  """Calls a model and returns, for each output that ends in softmax, the tensor before it.

  During the call, layers that end in softmax record their input; the model and its layers' outputs do not change. If
  that tensor does not reach the output unchanged (because another layer reshapes the probabilities, say), the result is
  the logarithm of the probabilities, which are logits as well.

  Args:
    model: a `tf_keras` or Keras 3 model, or any other function, whose last operation is examined in a graph.
  """

  def __init__(self, model: Any):
    self._model = model
    self._endings = endings(model)
    self._converts = self._endings is None or not {"softmax", None}.isdisjoint(self._endings)
    self.is_known = self._endings is not None and "softmax" in self._endings

  def __call__(self, call: Callable[[], Any]) -> Any:
    """Runs the model by `call()`, and returns its outputs as logits."""
    if not self._converts:
      return call()
    with _recording(self._model) as found:
      outputs = call()
    known = self._endings or [None] * len(tf.nest.flatten(outputs))
    pairs = zip(tf.nest.flatten(outputs), known, strict=True)
    return tf.nest.pack_sequence_as(outputs, [_logits(output, ending, found) for output, ending in pairs])


def _logits(output: Any, ending: str | None, found: list[tuple]) -> Any:
  for probabilities, logits in found:
    if probabilities is output:
      return logits
  if ending is None and hasattr(output, "op") and output.op.type == "Softmax":
    return output.op.inputs[0]
  if ending == "softmax" or ending is None and ending_of_tensor(output) == "softmax":
    return tf.math.log(tf.maximum(tf.cast(output, tf.float32), _TINY))
  return output


@contextlib.contextmanager
def _recording(model: Any) -> Iterator[list[tuple]]:
  """Records pairs (probabilities, logits) of all softmax functions that the model's layers call."""
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


def _recorder(layer: Any, function: Callable, found: list[tuple]) -> Callable:
  @tf.autograph.experimental.do_not_convert
  def recorded(*args, **kwargs):
    outputs = function(*args, **kwargs)
    logits, *others = *args, *kwargs.values()
    is_masked = any(tf.is_tensor(other) for other in others)
    if not is_masked and _is_over_last_axis(layer, args, kwargs, outputs.shape):
      found.append((outputs, logits))
    return outputs

  return recorded


def _layers(model: Any) -> list:
  """All layers and operations of a model and its nested models, each once."""
  seen, waiting = {}, [model]
  while waiting:
    layer = waiting.pop()
    if id(layer) in seen:
      continue
    seen[id(layer)] = layer
    waiting += getattr(layer, "operations", None) or ()
    waiting += layer._flatten_layers(include_self=False) if hasattr(layer, "_flatten_layers") else ()
    waiting += getattr(layer, "_quantize_activations", ())  # tfmot assigns these to the wrapped layer at every call.
  return list(seen.values())


def _softmax_attribute(layer: Any) -> str | None:
  """Name of the attribute of a layer that computes a softmax, or None."""
  if type(layer).__name__ in _WRAPPERS or _kind_of_layer(layer) != "softmax":
    return None
  return "activation" if hasattr(layer, "activation") else "call"


def _ending(tensor: Any) -> str | None:
  layer, node_index, tensor_index = tensor._keras_history[:3]
  if hasattr(layer, "outputs") and getattr(layer, "layers", None):  # A nested model.
    return _ending(layer.outputs[tensor_index])
  inner = _unwrapped(layer)
  if inner is not layer and getattr(inner, "outputs", None):  # TimeDistributed around a model.
    return _ending(inner.outputs[0])
  kind = _kind_of_layer(layer)
  if kind == "softmax" and not _is_over_last_axis(layer, *_arguments(layer, node_index), tensor.shape):
    return None
  if kind or not _is_transparent(layer):
    return kind or _values_or_nothing(layer)
  inputs = tf.nest.flatten(_inputs(layer, node_index))
  kinds = {_ending(t) if hasattr(t, "_keras_history") else None for t in inputs}
  return kinds.pop() if len(kinds) == 1 else None


def _is_over_last_axis(layer: Any, args: tuple, kwargs: dict[str, Any], shape: Any) -> bool:
  """Whether a softmax is over the last axis, by its layer and the arguments of its call."""
  axes = tf.nest.flatten([*args[1:2], kwargs.get("axis"), getattr(layer, "axis", None)])
  axes = [axis for axis in axes if isinstance(axis, int)]
  rank = tf.TensorShape(shape).rank
  return all(axis == -1 or rank is not None and axis == rank - 1 for axis in axes)


def _arguments(layer: Any, node_index: int) -> tuple[tuple, dict[str, Any]]:
  node = layer._inbound_nodes[node_index]
  arguments = getattr(node, "arguments", None)  # Keras 3's.
  return (arguments.args, arguments.kwargs) if arguments else (node.call_args, node.call_kwargs)


def _inputs(layer: Any, node_index: int) -> Any:
  node = layer._inbound_nodes[node_index]
  return node.keras_inputs if hasattr(node, "keras_inputs") else node.input_tensors


def _kind_of_layer(layer: Any) -> str | None:
  """The activation of a layer: "softmax", "sigmoid" or None."""
  layer = _unwrapped(layer)
  name = type(layer).__name__
  if name == "Softmax":
    return "softmax"
  if name == "Sigmoid":  # Keras 3's operation.
    return "sigmoid"
  kinds = {"softmax_v2": "softmax", "softmax": "softmax", "sigmoid": "sigmoid"}
  found = kinds.get(_function_name(layer) or "")
  if found and not _is_of_elements(layer):
    return None
  return found


def _function(layer: Any) -> Any:
  """The last function of a layer, or None."""
  is_of_function = type(layer).__name__ in ("TFOpLambda", "Lambda")
  function = getattr(layer, "function" if is_of_function else "activation", None)
  return getattr(function, "activation", function)  # tfmot's quantized activations hold the function.


def _function_name(layer: Any) -> str | None:
  function = _function(layer)
  return None if function is None else getattr(function, "__name__", type(function).__name__.lower())


def _is_of_elements(layer: Any) -> bool:
  """Whether a layer's `activation` is applied to its output; that of a recurrent cell is not."""
  return not any(base.__name__ in ("RNN", "LSTMCell", "GRUCell", "SimpleRNNCell") for base in type(layer).__mro__)


def _is_transparent(layer: Any) -> bool:
  name = type(layer).__name__
  if name == "TFOpLambda":
    return _function_name(layer) in _TRANSPARENT
  return name == "Activation" and _function_name(layer) == "linear" or name in _TRANSPARENT


def _values_or_nothing(layer: Any) -> str | None:
  """Kind "values" for layers that are known not to end in probabilities, or None."""
  layer = _unwrapped(layer)
  known = ("Dense", "Conv", "Add", "BatchNormalization", "LayerNormalization", "MaxPooling", "ReLU")
  is_known = any(part in type(layer).__name__ for part in known)
  # A user-defined activation may be anything.
  module = getattr(_function(layer), "__module__", None) or "keras"
  return "values" if is_known and module.startswith(("keras", "tf_keras", "tensorflow.python")) else None


def _unwrapped(layer: Any) -> Any:
  """The layer inside tfmot's or Keras' wrappers."""
  while type(layer).__name__ in _WRAPPERS:
    layer = layer.layer
  return layer
