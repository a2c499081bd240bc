"""Layers of Keras 3 that `tf_keras` lacks."""

from collections.abc import Sequence

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
    return tf.cast(x * tf.cast(self.scale, tf.float32), inputs.dtype)

  def get_config(self):
    return {**super().get_config(), "axis": self.axis, "epsilon": self.epsilon}


@_registered
class SpectralNormalization(keras.layers.SpectralNormalization):
  """Is the layer of `tf_keras`, whose `build` fails where `tf.keras` is Keras 3."""

  def build(self, input_shape):
    keras.layers.Wrapper.build(self, input_shape)
    self.kernel = self.layer.kernel if hasattr(self.layer, "kernel") else self.layer.embeddings
    self.kernel_shape = self.kernel.shape.as_list()
    initializer = keras.initializers.TruncatedNormal(stddev=0.02)
    shape = (1, self.kernel_shape[-1])
    self.vector_u = self.add_weight("vector_u", shape=shape, initializer=initializer, trainable=False)


@_registered
class AdaptivePooling(keras.layers.Layer):
  """Pools each spatial axis to a number of bins; bin i of n covers floor(i size / n) to ceil((i + 1) size / n).

  Args:
    output_size: bins of each spatial axis.
    mode: "mean" or "max".
    data_format: "channels_last" or "channels_first".
  """

  def __init__(self, output_size: int | Sequence[int], mode: str, data_format: str = "channels_last", **kwargs):
    super().__init__(**kwargs)
    self.output_size, self.mode, self.data_format = output_size, mode, data_format

  def call(self, inputs):
    reduce = tf.reduce_mean if self.mode == "mean" else tf.reduce_max
    first = 1 if self.data_format == "channels_last" else 2
    rank = inputs.shape.rank - 2
    sizes = [self.output_size] * rank if isinstance(self.output_size, int) else self.output_size
    for axis, bins in enumerate(sizes, first):
      size = inputs.shape[axis]
      edges = [(i * size // bins, -(-(i + 1) * size // bins)) for i in range(bins)]
      parts = [reduce(tf.gather(inputs, range(*edge), axis=axis), axis, keepdims=True) for edge in edges]
      inputs = tf.concat(parts, axis)
    return inputs

  def get_config(self):
    config = {"output_size": self.output_size, "mode": self.mode, "data_format": self.data_format}
    return {**super().get_config(), **config}


@_registered
class GroupedQueryAttention(keras.layers.Layer):
  """Attention in which groups of query heads share one head of keys and values, arXiv:2305.13245.

  Args:
    head_dim: size of each head.
    num_query_heads: heads of the query, a multiple of `num_key_value_heads`.
    num_key_value_heads: heads of keys and values.
    dropout: probability that an attention score is dropped.
    use_bias: whether the projections have biases.
    dense: other arguments of the projections.
  """

  def __init__(
    self,
    head_dim: int,
    num_query_heads: int,
    num_key_value_heads: int,
    dropout: float = 0.0,
    use_bias: bool = True,
    dense: dict | None = None,
    **kwargs,
  ):
    super().__init__(**kwargs)
    self.supports_masking = True
    self.head_dim, self.num_query_heads, self.num_key_value_heads = head_dim, num_query_heads, num_key_value_heads
    self.dropout, self.use_bias, self.dense = dropout, use_bias, dict(dense or {})

  def build(self, input_shape):
    def projection(equation, heads, axes, name):
      shape = (None, heads, self.head_dim) if heads else (None, input_shape[-1])
      axes = axes if self.use_bias else None
      return keras.layers.EinsumDense(equation, shape, bias_axes=axes, name=name, dtype=self.dtype_policy, **self.dense)

    self.query = projection("bqm,muh->bquh", self.num_query_heads, "uh", "query")
    self.key = projection("bkm,mvh->bkvh", self.num_key_value_heads, "vh", "key")
    self.value = projection("bkm,mvh->bkvh", self.num_key_value_heads, "vh", "value")
    self.output_projection = projection("bquh,uhm->bqm", None, "m", "attention_output")
    self.drop = keras.layers.Dropout(self.dropout)
    super().build(input_shape)

  def call(
    self,
    query,
    value,
    key=None,
    attention_mask=None,
    return_attention_scores=False,
    training=None,
    use_causal_mask=False,
  ):
    key = value if key is None else key
    mask = self._mask(query, value, key, attention_mask, use_causal_mask)
    repeats = self.num_query_heads // self.num_key_value_heads
    queries = self.query(query)
    keys, values = (tf.repeat(x, repeats, axis=2) for x in (self.key(key), self.value(value)))
    scores = tf.einsum("bquh,bkuh->buqk", queries * self.head_dim**-0.5, keys)
    if mask is not None:
      scores = tf.where(mask[:, None], scores, tf.cast(scores.dtype.min / 2, scores.dtype))
    scores = tf.nn.softmax(scores)
    outputs = self.output_projection(tf.einsum("buqk,bkuh->bquh", self.drop(scores, training=training), values))
    return (outputs, scores) if return_attention_scores else outputs

  def _mask(self, query, value, key, attention_mask, use_causal_mask):
    masks = [None if attention_mask is None else tf.cast(attention_mask, tf.bool)]
    for tensor, axis in ((query, 2), (value, 1), (key, 1)):
      mask = getattr(tensor, "_keras_mask", None)
      masks.append(None if mask is None else tf.expand_dims(mask, axis))
    if use_causal_mask:
      rows, columns = tf.range(tf.shape(query)[1]), tf.range(tf.shape(value)[1])
      masks.append(rows[None, :, None] >= columns[None, None])
    masks = [mask for mask in masks if mask is not None]
    result = masks[0] if masks else None
    for mask in masks[1:]:
      result = result & mask
    return result

  def get_config(self):
    names = ("head_dim", "num_query_heads", "num_key_value_heads", "dropout", "use_bias")
    dense = {name: keras.saving.serialize_keras_object(value) for name, value in self.dense.items()}
    return {**super().get_config(), **{name: getattr(self, name) for name in names}, "dense": dense}

  @classmethod
  def from_config(cls, config):
    dense = {name: keras.saving.deserialize_keras_object(value) for name, value in config.pop("dense").items()}
    return cls(**config, dense=dense)


@_registered
class Einsum(keras.layers.Layer):
  """Sums products of its inputs over the letters that the equation's right side lacks."""

  def __init__(self, equation: str, **kwargs):
    super().__init__(**kwargs)
    self.equation = equation

  def call(self, inputs):
    return tf.einsum(self.equation, *inputs)

  def get_config(self):
    return {**super().get_config(), "equation": self.equation}
