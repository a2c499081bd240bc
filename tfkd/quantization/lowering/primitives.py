"""Layers that an integer file computes with one operation, for those that need several or none of tfmot's forms."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tf_keras as keras

layers = keras.layers
_LEVELS = 255.0
_register = keras.saving.register_keras_serializable(package="tfkd")


def _scaled(inputs: tf.Tensor, scale: tf.Tensor, offset: tf.Tensor) -> tf.Tensor:
  """Returns inputs * scale + offset as a depthwise convolution, which has an integer form with a scale per channel.

  Every weight of its kernel is the only one of a channel, so that eight bits represent it exactly.

  Args:
    inputs: float [batch, ..., channels].
    scale, offset: float [channels].
  """
  shape = tf.shape(inputs)
  maps = inputs if inputs.shape.rank == 4 else tf.reshape(inputs, [shape[0], -1, 1, inputs.shape[-1]])
  outputs = tf.nn.depthwise_conv2d(maps, scale[None, None, :, None], [1, 1, 1, 1], "VALID") + offset
  return outputs if inputs.shape.rank == 4 else tf.reshape(outputs, shape)


@_register
class AffineNormalization(layers.BatchNormalization):
  """Batch normalisation that does not fold into a convolution, computed as a depthwise convolution in inference."""

  def call(self, inputs: tf.Tensor, training: bool | tf.Tensor | None = None, **kwargs: Any) -> tf.Tensor:
    if training is None or tf.is_tensor(training) or training:
      return super().call(inputs, training=training, **kwargs)
    scale = tf.math.rsqrt(self.moving_variance + self.epsilon)
    if self.gamma is not None:
      scale *= self.gamma
    offset = -self.moving_mean * scale
    if self.beta is not None:
      offset += self.beta
    return _scaled(inputs, scale, offset)


@_register
class FrozenStatistics(layers.BatchNormalization):
  """Batch normalisation that the float model calls with `training=False`: its statistics never change."""

  def call(self, inputs: tf.Tensor, training: bool | tf.Tensor | None = None, **kwargs: Any) -> tf.Tensor:
    return super().call(inputs, training=False, **kwargs)


@_register
class AffineFrozenStatistics(AffineNormalization):
  """`FrozenStatistics` that do not fold into a convolution."""

  def call(self, inputs: tf.Tensor, training: bool | tf.Tensor | None = None, **kwargs: Any) -> tf.Tensor:
    return super().call(inputs, training=False, **kwargs)


@_register
class ConstantAffine(layers.Layer):
  """Constant scale and offset, as of images that are normalized.

  Args:
    scale, offset: floats, one or one for each entry of the last axis.
    output_range: range that the output is clipped to when it is rounded, or None.
  """

  def __init__(
    self,
    scale: npt.ArrayLike,
    offset: npt.ArrayLike,
    output_range: tuple[float, float] | None = None,
    **kwargs: Any,
  ):
    super().__init__(**kwargs)
    self.supports_masking = True
    self.scale, self.offset = ([float(value) for value in np.ravel(part)] for part in (scale, offset))
    self.output_range = None if output_range is None else (output_range[0], output_range[1])

  def call(self, inputs: tf.Tensor) -> tf.Tensor:
    channels = inputs.shape[-1]
    if channels is None or inputs.shape.rank == 1:
      return inputs * tf.constant(self.scale, inputs.dtype) + tf.constant(self.offset, inputs.dtype)
    scale, offset = (tf.constant(np.broadcast_to(p, [channels]), inputs.dtype) for p in (self.scale, self.offset))
    return _scaled(inputs, scale, offset)

  def compute_output_shape(self, input_shape: Any) -> Any:
    return input_shape

  def get_config(self) -> dict[str, Any]:
    own = {"scale": self.scale, "offset": self.offset, "output_range": self.output_range}
    return {**super().get_config(), **own}


@_register
class ChannelAffine(layers.Layer):
  """Learned scale and offset of each entry of the last axis, as after a normalization.

  Args:
    with_scale, with_offset: whether there is one.
    options: initializers, regularizers and constraints by weight, such as `gamma_initializer`.
  """

  def __init__(self, with_scale: bool, with_offset: bool, options: dict[str, Any] | None = None, **kwargs: Any):
    super().__init__(**kwargs)
    self.supports_masking = True
    self.with_scale, self.with_offset = with_scale, with_offset
    self.options = dict(options or {})

  def build(self, input_shape: Any) -> None:
    def weight(name, default):
      given = {key: self.options.get(f"{name}_{key}") for key in ("initializer", "regularizer", "constraint")}
      given = {key: getattr(keras, f"{key}s").get(value) for key, value in given.items()}
      return self.add_weight(name, [input_shape[-1]], **{**given, "initializer": given["initializer"] or default})

    self.gamma = weight("gamma", "ones") if self.with_scale else None
    self.beta = weight("beta", "zeros") if self.with_offset else None
    super().build(input_shape)

  def call(self, inputs: tf.Tensor) -> tf.Tensor:
    channels = inputs.shape[-1:]
    scale = tf.ones(channels, inputs.dtype) if self.gamma is None else self.gamma
    return _scaled(inputs, scale, tf.zeros(channels, inputs.dtype) if self.beta is None else self.beta)

  def compute_output_shape(self, input_shape: Any) -> Any:
    return input_shape

  def get_config(self) -> dict[str, Any]:
    own = {"with_scale": self.with_scale, "with_offset": self.with_offset, "options": self.options}
    return {**super().get_config(), **own}


@_register
class AverageConvolution(layers.Layer):
  """Average pooling whose outputs are rounded in a range of their own: that of LiteRT rounds in its input's range.

  Args:
    pool_size, strides: integers for each axis between batch and channels.
    padding: "valid" or "same"; padding is not averaged.
  """

  def __init__(self, pool_size: Sequence[int], strides: Sequence[int], padding: str, **kwargs: Any):
    super().__init__(**kwargs)
    self.pool_size, self.strides, self.padding = list(pool_size), list(strides), padding

  def call(self, inputs: tf.Tensor) -> tf.Tensor:
    return self._of_maps(inputs) if inputs.shape.rank == 4 else _on_images(self._of_maps, inputs)

  def _of_maps(self, maps: tf.Tensor) -> tf.Tensor:
    # Depthwise convolutions have one stride; sequences have height 1.
    sizes, strides = [1] * (2 - len(self.pool_size)) + self.pool_size, self.strides * (3 - len(self.strides))
    has_partial_windows = self.padding == "same" and any(
      size > 1 and (size != stride or side is None or side % size)
      for side, size, stride in zip(maps.shape[1:3], sizes, strides, strict=True)
    )
    if has_partial_windows or strides[0] != strides[1]:
      pooled = tf.nn.avg_pool2d(maps, sizes, strides, "SAME" if self.padding == "same" else "VALID")
      return _scaled(pooled, tf.ones(maps.shape[-1:]), tf.zeros(maps.shape[-1:]))
    kernel = tf.constant(1.0 / np.prod(sizes), maps.dtype, [*sizes, maps.shape[-1], 1])
    return tf.nn.depthwise_conv2d(maps, kernel, [1, *strides, 1], "VALID")

  def get_config(self) -> dict[str, Any]:
    own = {"pool_size": self.pool_size, "strides": self.strides, "padding": self.padding}
    return {**super().get_config(), **own}


@_register
class ReciprocalRoot(layers.Layer):
  """1 / sqrt(x) of values that are rounded to eight bits.

  The values of a constant patch of an image, say, round to 0. In training they count as the least step of the batch's
  range, so that they neither stretch the range of the outputs nor give gradients that are not finite; in inference
  LiteRT returns the greatest output for them, and so does the rounding of infinity.
  """

  def call(self, inputs: tf.Tensor, training: bool | tf.Tensor | None = None) -> tf.Tensor:
    if training is None or not tf.is_tensor(training) and not training:
      return tf.math.rsqrt(inputs)
    least = tf.stop_gradient(tf.reduce_max(inputs)) / _LEVELS
    floored = tf.math.rsqrt(tf.maximum(inputs, least))
    return tf.where(training, floored, tf.math.rsqrt(inputs)) if tf.is_tensor(training) else floored

  def compute_output_shape(self, input_shape: Any) -> Any:
    return input_shape


class OnSequences:
  """Makes a two-dimensional layer read and return sequences [batch, steps, channels], as images of height 1.

  The reshapes between two of them cancel in a file, so that LiteRT's fusions apply.
  """

  def __init__(self, *args: Any, **kwargs: Any):
    super().__init__(*args, **kwargs)
    self.input_spec = layers.InputSpec(ndim=3)

  def build(self, input_shape: Any) -> None:
    super().build(_as_images(input_shape))  # type: ignore[misc]
    self.input_spec = layers.InputSpec(ndim=3)

  def compute_output_shape(self, input_shape: Any) -> Any:
    if len(input_shape) == 4:  # Keras' own `call` asks for the shape of the images.
      return super().compute_output_shape(input_shape)  # type: ignore[misc]
    shape = tf.TensorShape(super().compute_output_shape(_as_images(input_shape)))  # type: ignore[misc]
    return shape[:1].concatenate(shape[2:])


def _on_images(call: Callable[[tf.Tensor], tf.Tensor], inputs: tf.Tensor) -> tf.Tensor:
  """Calls a function of images [batch, 1, steps, channels] on sequences."""
  steps, channels = inputs.shape[1:]
  outputs = call(tf.reshape(inputs, [-1, 1, tf.shape(inputs)[1] if steps is None else steps, channels]))
  steps, channels = outputs.shape[2:]
  return tf.reshape(outputs, [-1, tf.shape(outputs)[2] if steps is None else steps, channels])


def _as_images(shape: Any) -> tf.TensorShape:
  batch, steps, channels = tf.TensorShape(shape)
  return tf.TensorShape([batch, 1, steps, channels])


@_register
class SequenceConv2D(OnSequences, layers.Conv2D):
  """One-dimensional convolution: kernel (1, size)."""

  def call(self, inputs: tf.Tensor) -> tf.Tensor:
    return _on_images(super().call, inputs)


@_register
class SequenceDepthwiseConv2D(OnSequences, layers.DepthwiseConv2D):
  """One-dimensional depthwise convolution: kernel (1, size)."""

  def call(self, inputs: tf.Tensor) -> tf.Tensor:
    return _on_images(super().call, inputs)


@_register
class SequenceConv2DTranspose(OnSequences, layers.Conv2DTranspose):
  """One-dimensional transposed convolution: kernel (1, size)."""

  def call(self, inputs: tf.Tensor) -> tf.Tensor:
    return _on_images(super().call, inputs)


@_register
class SequenceNormalization(OnSequences, layers.BatchNormalization):
  """Batch normalization of sequences, which folds into the convolution before it."""

  def call(self, inputs: tf.Tensor, training: bool | tf.Tensor | None = None) -> tf.Tensor:
    return _on_images(functools.partial(super().call, training=training), inputs)

  def get_config(self) -> dict[str, Any]:
    return {**super().get_config(), "axis": -1}  # That of the images has another number.


@_register
class SequenceReLU(OnSequences, layers.ReLU):
  """ReLU of sequences, which fuses with the convolution before it."""

  def call(self, inputs: tf.Tensor) -> tf.Tensor:
    return _on_images(super().call, inputs)


# HDF5 files refer to wrapped layers by their unqualified class names.
keras.saving.get_custom_objects().update(
  {
    kind.__name__: kind
    for kind in (
      AffineNormalization, FrozenStatistics, AffineFrozenStatistics, ConstantAffine, ChannelAffine, AverageConvolution,
      ReciprocalRoot, SequenceConv2D, SequenceDepthwiseConv2D, SequenceConv2DTranspose, SequenceNormalization,
      SequenceReLU,
    )
  }
)  # fmt: skip
