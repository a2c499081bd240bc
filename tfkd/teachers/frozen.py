"""A model or function in inference mode: nothing is trained, updated, or tracked through it."""

import inspect

import tensorflow as tf
from absl import logging

from tfkd.features.taps import Keras3Reader, Reader, is_keras3
from tfkd.ops.probabilities import LogitsBeforeSoftmax


class Frozen:
  """Wraps a model or TensorFlow function as a teacher.

  A plain Python object on purpose: Keras tracks and checkpoints every layer that it can reach from a model, and would
  store the teacher with its student. The wrapped model's own `trainable` flag is left as the user set it.

  Outputs are logits: of a model that ends in softmax the tensor before it is returned, or the logarithm of the
  probabilities where that tensor cannot be had. Tapped layers give what they give. Of a function or SavedModel the last
  operation is looked at; a `Distiller` refuses what turns out to give probabilities all the same.

  Args:
    model: a `tf_keras` or Keras 3 (TensorFlow backend) model, or any function of a batch, made of TensorFlow
      operations, that returns a tensor or a list, tuple or dict of tensors.
    preprocess: function from the student's batch to the teacher's, as a `Preprocessing`; None for the same.

  Raises:
    TypeError: model is not callable.
  """

  def __init__(self, model, preprocess=None):
    if not callable(model):
      raise TypeError(f"teacher must be a model or a function of a batch; got {type(model).__name__}.")
    self.model = model
    self.preprocess = preprocess
    call = getattr(model, "call", model)
    self._takes_training = "training" in inspect.signature(call).parameters
    self._as_logits = LogitsBeforeSoftmax(model)
    if self._as_logits.is_known:
      logging.info("teacher %s ends in softmax: its logits are taken from before it.", name_of(model))

  def __call__(self, inputs):
    """Returns the model's outputs in inference mode, floats as float32, without gradient."""
    inputs = self._preprocessed(inputs)
    options = {"training": False} if self._takes_training else {}
    outputs = self._as_logits(lambda: self.model(inputs, **options))
    return tf.nest.map_structure(_freeze, outputs)

  def reader(self, layers):
    """A function from a batch to the pair of the outputs and a dict of what the named layers gave, in one pass.

    Raises:
      ValueError: the model has no graph of layers, or no such layer.
    """
    read = self._reader(layers)

    def run(inputs):
      inputs, features = self._preprocessed(inputs), {}

      def outputs():
        outputs, found = read(inputs, training=False)
        features.update(found)
        return outputs

      return tf.nest.map_structure(_freeze, (self._as_logits(outputs), features))

    return run

  def tap_shapes(self, layers):
    """Static output shapes, a dict by layer name."""
    return self._reader(layers).shapes

  def _preprocessed(self, inputs):
    return self.preprocess(inputs) if self.preprocess else inputs

  def _reader(self, layers):
    if not hasattr(self.model, "layers"):
      raise ValueError(
        f"teacher {name_of(self.model)} has no layers to tap, and objectives read {', '.join(layers)}: give a "
        "functional or Sequential model, or a Precomputed teacher whose data holds these features."
      )
    return (Keras3Reader if is_keras3(self.model) else Reader)(self.model, layers)

  def student_inputs(self, inputs):
    """What the student sees of the batch: all of it."""
    return inputs


def name_of(model):
  """What to call a model or function in a message."""
  name = getattr(model, "name", None) or getattr(model, "__name__", None)
  return repr(name) if isinstance(name, str) else f"of type {type(model).__name__}"


def _freeze(tensor):
  tensor = tf.stop_gradient(tf.convert_to_tensor(tensor))
  return tf.cast(tensor, tf.float32) if tensor.dtype.is_floating else tensor
