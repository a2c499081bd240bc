"""Activation functions of Keras 3 by their `tf_keras` names; those that `tf_keras` lacks are defined here."""

from collections.abc import Callable

import tensorflow as tf
import tf_keras as keras

_registered = keras.utils.register_keras_serializable(package="tfkd")

# Functions of the same name and meaning. `hard_sigmoid` has the same name, and another slope.
SAME = (
  "elu",
  "exponential",
  "gelu",
  "linear",
  "mish",
  "relu",
  "selu",
  "sigmoid",
  "softmax",
  "softplus",
  "softsign",
  "tanh",
)


@_registered
def hard_sigmoid(x: tf.Tensor) -> tf.Tensor:
  """Computes relu6(x + 3) / 6; the function of this name in `tf_keras` is clip(0.2 x + 0.5, 0, 1)."""
  return tf.nn.relu6(x + 3.0) / 6.0


@_registered
def hard_silu(x: tf.Tensor) -> tf.Tensor:
  """Computes x relu6(x + 3) / 6."""
  return x * tf.nn.relu6(x + 3.0) / 6.0


@_registered
def leaky_relu(x: tf.Tensor) -> tf.Tensor:
  """Computes max(x, 0.2 x)."""
  return tf.nn.leaky_relu(x, alpha=0.2)


@_registered
def relu6(x: tf.Tensor) -> tf.Tensor:
  """Computes min(max(x, 0), 6)."""
  return tf.nn.relu6(x)


@_registered
def log_softmax(x: tf.Tensor) -> tf.Tensor:
  """Computes the logarithm of the softmax over the last axis."""
  return tf.nn.log_softmax(x)


@_registered
def log_sigmoid(x: tf.Tensor) -> tf.Tensor:
  """Computes the logarithm of the sigmoid."""
  return tf.math.log_sigmoid(x)


@_registered
def celu(x: tf.Tensor) -> tf.Tensor:
  """Computes max(x, 0) + min(exp(x) - 1, 0)."""
  return tf.maximum(x, 0.0) + tf.math.expm1(tf.minimum(x, 0.0))


@_registered
def hard_tanh(x: tf.Tensor) -> tf.Tensor:
  """Computes min(max(x, -1), 1)."""
  return tf.clip_by_value(x, -1.0, 1.0)


@_registered
def tanh_shrink(x: tf.Tensor) -> tf.Tensor:
  """Computes x - tanh(x)."""
  return x - tf.tanh(x)


@_registered
def squareplus(x: tf.Tensor) -> tf.Tensor:
  """Computes (x + sqrt(x^2 + 4)) / 2."""
  return 0.5 * (x + tf.sqrt(tf.square(x) + 4.0))


@_registered
def glu(x: tf.Tensor) -> tf.Tensor:
  """Multiplies the first half of the last axis by the sigmoid of the second."""
  first, second = tf.split(x, 2, axis=-1)
  return first * tf.sigmoid(second)


OWN = {
  function.__name__: function
  for function in (
    celu,
    glu,
    hard_sigmoid,
    hard_silu,
    hard_tanh,
    leaky_relu,
    log_sigmoid,
    log_softmax,
    relu6,
    squareplus,
    tanh_shrink,
  )
}
_ALIASES = {"hard_swish": "hard_silu", "swish": "silu"}


def converted(name: str) -> Callable[[tf.Tensor], tf.Tensor] | None:
  """The `tf_keras` activation for the name of an activation in Keras 3; None if there is none."""
  name = _ALIASES.get(name, name)
  if name == "silu":
    return keras.activations.swish
  return getattr(keras.activations, name) if name in SAME else OWN.get(name)
