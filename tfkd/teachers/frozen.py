"""A model or function in inference mode: it is not trained, updated or tracked."""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import tensorflow as tf
from absl import logging

from tfkd.features import ModelOutputs
from tfkd.features.taps import Keras3Reader, Reader
from tfkd.keras3 import is_keras3
from tfkd.ops.graph import has_graph
from tfkd.ops.probabilities import LogitsBeforeSoftmax
from tfkd.storage.digests import sha256_of_arrays
from tfkd.teachers.protocol import Teacher


class Frozen:
  """Wraps a model or TensorFlow function as a teacher.

  A plain Python object, because Keras tracks and checkpoints every layer that it can reach from a model, and would
  store the teacher with its student. The wrapped model's own `trainable` flag is left as the user set it.

  Outputs are logits: of a model that ends in softmax, the tensor before it, or the logarithm of the probabilities if
  that tensor cannot be read. Features are not converted. Of a function or SavedModel the last operation is
  examined; a `Distiller` refuses outputs that turn out to be probabilities nevertheless.

  Features are outputs of layers of a functional or `Sequential` model. A function, or a model without a graph of
  layers, returns them itself, as `tfkd.features.ModelOutputs(outputs, {name: feature})`; objectives name them as they
  name layers. Code that is not TensorFlow's, such as a PyTorch model, runs in `tf.numpy_function`, whose results need
  `tf.ensure_shape`.

  Args:
    model: a `tf_keras` or Keras 3 (TensorFlow backend) model, or any function of a batch, made of TensorFlow
      operations, that returns a tensor, a list, tuple or dict of tensors, or `tfkd.features.ModelOutputs`.
    preprocess: function from the student's batch to the teacher's, such as a `Preprocessing`; None if both read the
      same.

  Raises:
    TypeError: model is not callable, or a PyTorch module.
  """

  def __init__(self, model: Callable[..., Any], preprocess: Callable[[Any], Any] | None = None):
    if not callable(model):
      raise TypeError(f"teacher must be a model or a function of a batch; got {type(model).__name__}.")
    if any(base.__module__.startswith("torch.") for base in type(model).__mro__):
      raise TypeError(
        f"teacher is the PyTorch module {type(model).__name__}, and a step runs TensorFlow operations: pass a function "
        "that calls it in tf.numpy_function and gives each result its shape by tf.ensure_shape."
      )
    self.model = model
    self.preprocess = preprocess
    call = getattr(model, "call", model)
    self._takes_training = "training" in inspect.signature(call).parameters
    self._as_logits = LogitsBeforeSoftmax(model)
    self._readers = {}
    if self._as_logits.is_known:
      logging.info("teacher %s ends in softmax: the logits before it are used.", name_of(model))

  def __call__(self, inputs: Any, features: Sequence[str] = ()) -> ModelOutputs:
    """Runs the model in inference mode: floats as float32, without gradient.

    Raises:
      ValueError: the model has no such layer, or does not return such a feature.
    """
    if self.preprocess:
      inputs = self.preprocess(inputs)
    found = {}

    def outputs():
      if features and has_graph(self.model):
        outputs, values = self._reader(features)(inputs, training=False)
      else:
        outputs = self.model(inputs, **({"training": False} if self._takes_training else {}))
        outputs, values = outputs if isinstance(outputs, ModelOutputs) else (outputs, {})
      found.update(values)
      return outputs

    outputs = self._as_logits(outputs)
    self._check_features(features, found)
    return tf.nest.map_structure(freeze, ModelOutputs(outputs, found))

  def describe(self) -> dict[str, Any]:
    """Digest of the weights, and the preprocessing."""
    return {"weights": digest_of_weights([self.model]), "preprocessing": [name_of_preprocessing(self.preprocess)]}

  def feature_shapes(self, features: Sequence[str], inputs: Any = None) -> dict[str, tf.TensorShape] | None:
    """Static shapes by layer name, or by name of the features that a function returns.

    Args:
      features: the names.
      inputs: nested `tf.TensorSpec` of a batch, for which a function is traced; None if unknown.

    Returns:
      dict; None if a function cannot be traced for these inputs, which shows in the first step.

    Raises:
      ValueError: see `__call__`.
    """
    if has_graph(self.model):
      return self._reader(features).shapes
    if inputs is None:
      return None
    found = {}
    trace = tf.function(lambda batch: found.update(self(batch).features))
    try:
      trace.get_concrete_function(inputs)
    except Exception:  # Of any type: the function is the user's, and batches may have other types than these inputs.
      return None
    self._check_features(features, found)
    return {name: found[name].shape for name in features}

  def _check_features(self, features: Sequence[str], found: Mapping[str, Any]) -> None:
    missing = [name for name in features if name not in found]  # AutoGraph cannot read `:=`.
    if missing:
      raise ValueError(
        f"teacher {name_of(self.model)} gives no feature {', '.join(missing)}, which objectives read; it gives "
        f"{', '.join(map(str, found)) or 'none'}: use a functional or Sequential model with an Input, or "
        "return tfkd.features.ModelOutputs(outputs, {name: feature}) from a function."
      )

  def _reader(self, features: Sequence[str]) -> Reader | Keras3Reader:
    names = tuple(features)
    if names not in self._readers:
      self._readers[names] = (Keras3Reader if is_keras3(self.model) else Reader)(self.model, names)
    return self._readers[names]


def as_teacher(teacher: Any) -> Teacher:
  """Returns a teacher as it is, and wraps a model or function as `Frozen`."""
  return teacher if isinstance(teacher, Teacher) else Frozen(teacher)


def name_of(model: Any) -> str:
  """The name of a model or function in a message."""
  name = getattr(model, "name", None) or getattr(model, "__name__", None)
  return repr(name) if isinstance(name, str) else f"of type {type(model).__name__}"


def digest_of_weights(models: Iterable[Any]) -> str:
  """SHA-256 of the types, shapes and values of the weights of models, in hexadecimal."""
  variables = (
    variable
    for model in models
    for variable in getattr(model, "weights", None) or getattr(model, "variables", None) or ()
  )
  return sha256_of_arrays(tf.convert_to_tensor(variable).numpy() for variable in variables)  # Mirrored ones as well.


def name_of_preprocessing(preprocess: Any) -> str | None:
  """A NamedTuple with all its values, or the name of a function: two functions of one name cannot be told apart."""
  return repr(preprocess) if isinstance(preprocess, tuple) else getattr(preprocess, "__qualname__", None)


def freeze(tensor: Any) -> tf.Tensor:
  """The tensor without gradient, floats as float32."""
  tensor = tf.stop_gradient(tf.convert_to_tensor(tensor))
  return tf.cast(tensor, tf.float32) if tensor.dtype.is_floating else tensor
