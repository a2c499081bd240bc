"""Layers of this library in Keras 3; imported when a model with them is converted."""

import keras


@keras.saving.register_keras_serializable(package="tfkd")
class Tokens(keras.layers.Layer):
  """Prepends a learned class token, and adds a learned position embedding, as the layer of `tfkd.models.vit` does."""

  def build(self, input_shape):
    _, patches, width = input_shape
    initializer = keras.initializers.TruncatedNormal(stddev=0.02)
    self.class_token = self.add_weight(shape=(1, 1, width), initializer=initializer, name="class_token")
    self.positions = self.add_weight(shape=(1, 1 + patches, width), initializer=initializer, name="positions")

  def call(self, inputs):
    ops = keras.ops
    token = ops.broadcast_to(self.class_token, (ops.shape(inputs)[0], 1, inputs.shape[-1]))
    return ops.concatenate([token, inputs], axis=1) + self.positions

  def compute_output_shape(self, input_shape):
    batch, patches, width = input_shape
    return batch, 1 + patches, width
