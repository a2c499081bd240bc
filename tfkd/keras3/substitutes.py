"""Layers of Keras 3 that `tf_keras` lacks."""

import tensorflow as tf
import tf_keras as keras

_registered = keras.utils.register_keras_serializable(package="tfkd")


@_registered
class LayerScale(keras.layers.Layer):
  """Multiplies the last axis by trained factors, as ConvNeXt does, arXiv:2201.03545."""

  def __init__(self, init_values: float, projection_dim: int, **kwargs):
    super().__init__(**kwargs)
    self.init_values, self.projection_dim = init_values, projection_dim

  def build(self, input_shape):
    initializer = keras.initializers.Constant(self.init_values)
    self.gamma = self.add_weight("gamma", shape=(self.projection_dim,), initializer=initializer)
    super().build(input_shape)

  def call(self, inputs):
    return inputs * self.gamma

  def get_config(self):
    return {**super().get_config(), "init_values": self.init_values, "projection_dim": self.projection_dim}


@_registered
class StochasticDepth(keras.layers.Layer):
  """Drops the whole residual branch of an example in training, arXiv:1603.09382.

  Args:
    rate: probability that a branch is dropped; others are divided by 1 - rate.
  """

  def __init__(self, rate: float, **kwargs):
    super().__init__(**kwargs)
    self.rate = rate

  def call(self, inputs, training=None):
    if not training or not self.rate:
      return inputs
    keep = 1.0 - self.rate
    shape = [tf.shape(inputs)[0], *[1] * (inputs.shape.rank - 1)]
    return inputs / keep * tf.floor(keep + tf.random.uniform(shape, dtype=inputs.dtype))

  def get_config(self):
    return {**super().get_config(), "rate": self.rate}


@_registered
class ScaledSum(keras.layers.Layer):
  """Adds the second input, multiplied by a number, to the first, as Inception-ResNet does, arXiv:1602.07261."""

  def __init__(self, scale: float, **kwargs):
    super().__init__(**kwargs)
    self.scale = scale

  def call(self, inputs):
    return inputs[0] + inputs[1] * self.scale

  def get_config(self):
    return {**super().get_config(), "scale": self.scale}


@_registered
class RMSNormalization(keras.layers.Layer):
  """Divides by the root mean square over an axis and multiplies by trained factors, arXiv:1910.07467.

  Args:
    axis: one axis or several.
    epsilon: is added to the mean square.
  """

  def __init__(self, axis: int | list[int] = -1, epsilon: float = 1e-6, **kwargs):
    super().__init__(**kwargs)
    self.axis, self.epsilon = axis, epsilon

  def build(self, input_shape):
    axes = [self.axis] if isinstance(self.axis, int) else self.axis
    shape = [input_shape[axis] for axis in axes]
    self.scale = self.add_weight("scale", shape=shape, initializer="ones")
    super().build(input_shape)

  def call(self, inputs):
    x = tf.cast(inputs, tf.float32)
    x = x * tf.math.rsqrt(tf.reduce_mean(tf.square(x), self.axis, keepdims=True) + self.epsilon)
    axes = [self.axis] if isinstance(self.axis, int) else self.axis
    axes = [axis % inputs.shape.rank for axis in axes]
    shape = [inputs.shape[axis] if axis in axes else 1 for axis in range(inputs.shape.rank)]
    return tf.cast(x * tf.cast(tf.reshape(self.scale, shape), tf.float32), inputs.dtype)

  def get_config(self):
    return {**super().get_config(), "axis": self.axis, "epsilon": self.epsilon}
