"""A model or function that only answers: nothing is trained, updated, or tracked through it."""

import inspect

import tensorflow as tf

from tfkd.taps import Keras3Reader, Reader, is_keras3


class Frozen:
  """Wraps a model or TensorFlow function as a teacher.

  A plain Python object on purpose: Keras tracks and checkpoints every layer that it can reach from a model, and would
  store the teacher with its student. The wrapped model's own `trainable` flag is left as the user set it.

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

  def __call__(self, inputs):
    """Returns the model's outputs in inference mode, floats as float32, without gradient."""
    inputs = self._preprocessed(inputs)
    outputs = self.model(inputs, training=False) if self._takes_training else self.model(inputs)
    return tf.nest.map_structure(_freeze, outputs)

  def reader(self, layers):
    """A function from a batch to the pair of the outputs and a dict of what the named layers gave, in one pass.

    Raises:
      ValueError: the model has no graph of layers, or no such layer.
    """
    read = self._reader(layers)
    return lambda inputs: tf.nest.map_structure(_freeze, read(self._preprocessed(inputs), training=False))

  def tap_shapes(self, layers):
    """Static output shapes, a dict by layer name."""
    return self._reader(layers).shapes

  def _preprocessed(self, inputs):
    return self.preprocess(inputs) if self.preprocess else inputs

  def _reader(self, layers):
    return (Keras3Reader if is_keras3(self.model) else Reader)(self.model, layers)

  def student_inputs(self, inputs):
    """What the student sees of the batch: all of it."""
    return inputs


def _freeze(tensor):
  tensor = tf.stop_gradient(tf.convert_to_tensor(tensor))
  return tf.cast(tensor, tf.float32) if tensor.dtype.is_floating else tensor
