"""A model or function that only answers: nothing is trained, updated, or tracked through it."""

import inspect

import tensorflow as tf

from tfkd.taps import Reader


class Frozen:
  """Wraps a model or TensorFlow function as a teacher.

  A plain Python object on purpose: Keras tracks and checkpoints every layer that it can reach from a model, and would
  store the teacher with its student. The wrapped model's own `trainable` flag is left as the user set it.

  Args:
    model: a `tf_keras` or Keras 3 (TensorFlow backend) model, or any function of a batch, made of TensorFlow
      operations, that returns a tensor or a list, tuple or dict of tensors.

  Raises:
    TypeError: model is not callable.
  """

  def __init__(self, model):
    if not callable(model):
      raise TypeError(f"teacher must be a model or a function of a batch; got {type(model).__name__}.")
    self.model = model
    call = getattr(model, "call", model)
    self._takes_training = "training" in inspect.signature(call).parameters

  def __call__(self, inputs):
    """Returns the model's outputs in inference mode, floats as float32, without gradient."""
    outputs = self.model(inputs, training=False) if self._takes_training else self.model(inputs)
    return tf.nest.map_structure(_freeze, outputs)

  def reader(self, layers):
    """A function from a batch to the pair of the outputs and a dict of what the named layers gave, in one pass.

    Raises:
      ValueError: the model has no graph of layers, or no such layer.
    """
    read = Reader(self.model, layers)
    return lambda inputs: tf.nest.map_structure(_freeze, read(inputs, training=False))

  def tap_shapes(self, layers):
    """Static output shapes, a dict by layer name."""
    return Reader(self.model, layers).shapes

  def student_inputs(self, inputs):
    """What the student sees of the batch: all of it."""
    return inputs


def _freeze(tensor):
  tensor = tf.stop_gradient(tf.convert_to_tensor(tensor))
  return tf.cast(tensor, tf.float32) if tensor.dtype.is_floating else tensor
