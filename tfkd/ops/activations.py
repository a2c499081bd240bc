"""Activation functions that Keras 2 lacks, saved by name, and the names of functions."""

from typing import Any

import tensorflow as tf
import tf_keras as keras


@keras.saving.register_keras_serializable(package="tfkd")
def hard_swish(x: tf.Tensor) -> tf.Tensor:
  """X relu6(x + 3) / 6, which Keras 3 calls hard_silu.

  Source: Howard et al. 2019, arXiv:1905.02244, section 5.2.
  """
  return x * tf.nn.relu6(x + 3.0) * (1.0 / 6.0)


@keras.saving.register_keras_serializable(package="tfkd")
def relu6_sigmoid(x: tf.Tensor) -> tf.Tensor:
  """relu6(x + 3) / 6, Keras 3's hard_sigmoid; Keras 2's is clip(0.2 x + 0.5, 0, 1).

  Source: Howard et al. 2019, arXiv:1905.02244, section 5.2.
  """
  return tf.nn.relu6(x + 3.0) * (1.0 / 6.0)


def activation_name(activation: Any) -> str:
  """Returns the name of an activation function or layer, as used by tfmot and in messages."""
  return getattr(activation, "__name__", type(activation).__name__)
