"""tfmot's two wrapping layers, made to survive Keras' own `.keras` format.

tfmot 0.8.1 builds `QuantizeLayer` twice on loading and lists a wrapped kernel twice among the trainable weights, so
that a `.keras` file is written without a word and cannot be read. Models made by `tfkd.quantization.quantize` hold
these subclasses instead. They quantize as tfmot's do, to the last bit, search features after ReLU for no minimum, and
on several replicas know the range of them all.
"""

import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras as keras
from tensorflow_model_optimization.python.core.quantization.keras import quantize_layer, quantize_wrapper

from tfkd.quantization.decompose import is_plain_relu

_EMA_DECAY = 0.999  # tfmot's, which is part of its code.

# Models load without `tfmot.quantization.keras.quantize_scope()`: its classes are made known to Keras once.
for _objects in tfmot.quantization.keras.quantize_scope().custom_objects:
  keras.saving.get_custom_objects().update(_objects)


@keras.saving.register_keras_serializable(package="tfkd")
class QuantizeLayer(quantize_layer.QuantizeLayer):
  """Quantizes the input of a model, in a range that grows with the data unless the layer is frozen."""

  def call(self, inputs, training=None):
    return super().call(inputs, training=training if self.trainable else False)

  def get_build_config(self):
    return None  # Built on the first call, once.


@keras.saving.register_keras_serializable(package="tfkd")
class QuantizeWrapper(quantize_wrapper.QuantizeWrapperV2):
  """Quantizes weights, activation and output of the layer it wraps."""

  def build(self, input_shape):
    super().build(input_shape)
    # Only the kernels that quantized tensors replace in the inner layer; the inner layer lists the others itself.
    self._trainable_weights = [weight for weight, _, _ in self._weight_vars]
    self._activity_regularizer = self.layer._activity_regularizer  # Keras applies it around `__call__`, not `call`.
    kind = _NeverNegative if is_plain_relu(self.layer) else _MovingAverage
    self._output_quantizers = [self._as(kind, quantizer) for quantizer in self._output_quantizers]
    for activation in self._quantize_activations:
      activation.quantizer = self._as(_MovingAverage, activation.quantizer)

  def _as(self, kind, quantizer):
    """The same quantizer as one of ours, where it is tfmot's moving average of one range."""
    plain = isinstance(quantizer, tfmot.quantization.keras.quantizers.MovingAverageQuantizer)
    if not plain or quantizer.symmetric or quantizer.per_axis:
      return quantizer
    return kind(self, **quantizer.get_config())

  def _make_quantizer_fn(self, quantizer, x, training, quantizer_vars):
    # Ranges of a frozen layer, of its kernel and of what it gives, stay as they are.
    return super()._make_quantizer_fn(quantizer, x, training and self.trainable, quantizer_vars)

  # tfmot lists quantized kernels among the trainable weights, whatever `trainable` says.
  @property
  def trainable_weights(self):
    return super().trainable_weights if self.trainable else []

  @property
  def non_trainable_weights(self):
    frozen = [] if self.trainable else super().trainable_weights
    return self._dedup_weights(frozen + super().non_trainable_weights)

  def get_build_config(self):
    return None

  def get_config(self):
    config = super().get_config()
    # Built by this wrapper, under its name: HDF5 refuses two optimizer slots called "kernel".
    config["layer"].pop("build_config", None)
    return config


class _MovingAverage(tfmot.quantization.keras.quantizers.MovingAverageQuantizer):
  """tfmot's moving average of a feature's range: that of the global batch, not of a replica's share of it."""

  def __init__(self, wrapper, **config):
    super().__init__(**config)
    self._wrapper = wrapper

  def __call__(self, inputs, training, weights, **kwargs):
    if not training or not self._wrapper.trainable:  # Activation quantizers are called without the wrapper.
      return super().__call__(inputs, False, weights, **kwargs)
    low, high = (
      tf.__internal__.train.assign_moving_average(weights[name], value, _EMA_DECAY, zero_debias=False)
      for name, value in zip(("min_var", "max_var"), self._range(inputs), strict=True)
    )
    return tf.quantization.fake_quant_with_min_max_vars(
      inputs, low, high, num_bits=self.num_bits, narrow_range=self.narrow_range
    )

  def _range(self, inputs):
    """Least and largest, with 0 between them."""
    low, high = -_of_all_replicas(-tf.reduce_min(inputs)), _of_all_replicas(tf.reduce_max(inputs))
    return tf.minimum(low, 0.0), tf.maximum(high, 0.0)


class _NeverNegative(_MovingAverage):
  """Of features >= 0, whose least is 0 and need not be searched in every step."""

  def _range(self, inputs):
    return tf.zeros([]), tf.maximum(_of_all_replicas(tf.reduce_max(inputs)), 0.0)


def _of_all_replicas(value):
  """The largest of the replicas' values."""
  replica = tf.distribute.get_replica_context()
  if replica is None or replica.num_replicas_in_sync == 1:
    return value
  return tf.reduce_max(replica.all_gather(tf.stop_gradient(value)[None], axis=0))


def make_saveable(model):
  """Returns an equal model in which tfmot's wrapping layers are those of this module."""
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


def set_kernel_ranges(model):
  """Sets the ranges of all kernels from their weights, as every training step does of layers that are not frozen."""
  for layer in model.layers:
    for weight, quantizer, ranges in getattr(layer, "_weight_vars", ()):
      quantizer(weight, True, weights=ranges)
