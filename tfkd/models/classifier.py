"""The last layers of convolutional networks: global average pooling and logits."""

import tensorflow as tf
import tf_keras as keras


def classifier(inputs: tf.Tensor, x: tf.Tensor, num_classes: int, name: str) -> keras.Model:
  """Adds global average pooling and a dense layer, and makes the model.

  Args:
    inputs: the model's input.
    x: float [batch, height, width, channels], the last feature map.
    num_classes: size of the output, >= 2.
    name: name of the model.

  Returns:
    A `tf_keras` functional model from inputs to logits [batch, num_classes]; layers `embedding` and `logits` are added.

  Raises:
    ValueError: fewer than two classes.
  """
  if num_classes < 2:
    raise ValueError(f"num_classes must be at least 2; got {num_classes}.")
  x = keras.layers.GlobalAveragePooling2D(name="embedding")(x)
  # Losses read float32 logits under mixed precision too.
  return keras.Model(inputs, keras.layers.Dense(num_classes, dtype="float32", name="logits")(x), name=name)
