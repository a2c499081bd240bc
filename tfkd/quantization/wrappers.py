"""Subclasses of tfmot's two wrapping layers that can be saved, frozen and trained on several replicas.

tfmot 0.8.1 builds `QuantizeLayer` twice on loading and lists a wrapped kernel twice among the trainable weights, so
that a `.keras` file is written without an error but cannot be loaded. Models of `tfkd.quantization.quantize` contain
these subclasses instead. They quantize as tfmot does, bit for bit, compute no minimum of features after ReLU, and use
the range of the global batch on several replicas.
"""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras as keras
from tensorflow_model_optimization.python.core.quantization.keras import quantize_layer, quantize_wrapper

from tfkd.quantization.decompose import is_plain_relu

_EMA_DECAY = 0.999  # Constant in tfmot's code.

# Registers tfmot's classes with Keras, so that models load without `tfmot.quantization.keras.quantize_scope()`.
for _objects in tfmot.quantization.keras.quantize_scope().custom_objects:
  keras.saving.get_custom_objects().update(_objects)


@keras.saving.register_keras_serializable(package="tfkd")
class QuantizeLayer(quantize_layer.QuantizeLayer):
  """Quantizes the input of a model in a range that is learned unless the layer is frozen."""

  def call(self, inputs: tf.Tensor, training: bool | tf.Tensor | None = None) -> tf.Tensor:
    return super().call(inputs, training=training if self.trainable else False)

  def get_build_config(self) -> None:
    return None  # The first call builds the layer; loading must not build it before.


@keras.saving.register_keras_serializable(package="tfkd")
class QuantizeWrapper(quantize_wrapper.QuantizeWrapperV2):
  """Quantizes weights, activation and output of the layer it wraps."""

  def build(self, input_shape: tf.TensorShape) -> None:
    super().build(input_shape)
    # Only the kernels, which quantized tensors replace in the inner layer; the inner layer lists the other weights.
    self._trainable_weights = [weight for weight, _, _ in self._weight_vars]
    self._activity_regularizer = self.layer._activity_regularizer  # Keras applies it around `__call__`, not `call`.
    kind = _NeverNegative if is_plain_relu(self.layer) else _MovingAverage
    self._output_quantizers = [self._as(kind, quantizer) for quantizer in self._output_quantizers]
    for activation in self._quantize_activations:
      activation.quantizer = self._as(_MovingAverage, activation.quantizer)

  def _as(self, kind: "type[_MovingAverage]", quantizer: Any) -> Any:
    """Returns an equal quantizer of another class if it is tfmot's moving average of one range."""
    plain = isinstance(quantizer, tfmot.quantization.keras.quantizers.MovingAverageQuantizer)
    if not plain or quantizer.symmetric or quantizer.per_axis:
      return quantizer
    return kind(self, **quantizer.get_config())

  def _make_quantizer_fn(self, quantizer, x, training, quantizer_vars):
    # The ranges of a frozen layer's kernel and output do not change.
    return super()._make_quantizer_fn(quantizer, x, training and self.trainable, quantizer_vars)

  # tfmot lists quantized kernels among the trainable weights regardless of `trainable`.
  @property
  def trainable_weights(self) -> Sequence[tf.Variable]:
    return super().trainable_weights if self.trainable else []

  @property
  def non_trainable_weights(self) -> Sequence[tf.Variable]:
    frozen = [] if self.trainable else super().trainable_weights
    return self._dedup_weights(frozen + super().non_trainable_weights)

  def get_build_config(self) -> None:
    return None

  def get_config(self) -> dict[str, Any]:
    config = super().get_config()
    # The wrapper builds the layer under its own name, since HDF5 refuses two optimizer slots called "kernel".
    config["layer"].pop("build_config", None)
    return config


class _MovingAverage(tfmot.quantization.keras.quantizers.MovingAverageQuantizer):
  """tfmot's moving average of the range of features, over the global batch instead of one replica's share."""

  def __init__(self, wrapper: QuantizeWrapper, **config: Any):
    super().__init__(**config)
    self._wrapper = wrapper

  def __call__(self, inputs, training, weights, **kwargs):
    if not training or not self._wrapper.trainable:  # Activations are quantized outside `_make_quantizer_fn`.
      return super().__call__(inputs, False, weights, **kwargs)
    low, high = (
      tf.__internal__.train.assign_moving_average(weights[name], value, _EMA_DECAY, zero_debias=False)
      for name, value in zip(("min_var", "max_var"), self._range(inputs), strict=True)
    )
    return tf.quantization.fake_quant_with_min_max_vars(
      inputs, low, high, num_bits=self.num_bits, narrow_range=self.narrow_range
    )

  def _range(self, inputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the minimum and the maximum of the global batch, extended to contain 0."""
    low, high = -_max_of_replicas(-tf.reduce_min(inputs)), _max_of_replicas(tf.reduce_max(inputs))
    return tf.minimum(low, 0.0), tf.maximum(high, 0.0)


class _NeverNegative(_MovingAverage):
  """Moving average for features >= 0, whose minimum is 0 and is not computed."""

  def _range(self, inputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    return tf.zeros([]), tf.maximum(_max_of_replicas(tf.reduce_max(inputs)), 0.0)


def _max_of_replicas(value: tf.Tensor) -> tf.Tensor:
  """Returns the maximum of a scalar over replicas."""
  replica = tf.distribute.get_replica_context()
  if replica is None or replica.num_replicas_in_sync == 1:
    return value
  return tf.reduce_max(replica.all_gather(tf.stop_gradient(value)[None], axis=0))


def make_saveable(model: keras.Model) -> keras.Model:
  """Returns an equal model in which the layers of this module replace tfmot's wrapping layers."""
  config = model.get_config()
  for layer in config["layers"]:
    ours = {"QuantizeLayer": QuantizeLayer, "QuantizeWrapperV2": QuantizeWrapper}.get(layer["class_name"])
    if ours:
      layer.update(class_name=ours.__name__, module=ours.__module__, registered_name=f"tfkd>{ours.__name__}")
      layer.pop("build_config", None)
      layer["config"].get("layer", {}).pop("build_config", None)
  saveable = type(model).from_config(config)
  saveable.set_weights(model.get_weights())
  return saveable


def set_kernel_ranges(model: keras.Model) -> None:
  """Sets the ranges of all kernels from their values, as training steps do for layers that are not frozen."""
  for layer in model.layers:
    for weight, quantizer, ranges in getattr(layer, "_weight_vars", ()):
      quantizer(weight, True, weights=ranges)
