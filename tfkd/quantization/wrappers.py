"""Wraps the layers of a model in subclasses of tfmot's two wrapping layers.

tfmot 0.8.1 builds `QuantizeLayer` twice on loading and lists a wrapped kernel twice among the trainable weights, so
that a `.keras` file is written without an error but cannot be loaded. These subclasses can be saved, frozen and
trained on several replicas. They quantize as tfmot does, bit for bit, compute no minimum of features after ReLU, use
the range of the global batch on several replicas, and pass masks on. tfmot's `quantize_apply` builds a model six times;
here it is built once.
"""

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras as keras
from tensorflow_model_optimization.python.core.quantization.keras import quantize_layer, quantize_wrapper

from tfkd.ops import graph
from tfkd.quantization import fake_quant
from tfkd.quantization.learned_quantizers import LearnedStepFeatures, LearnedStepWeights
from tfkd.quantization.lowering import is_plain_relu
from tfkd.quantization.pruned import Zeros, keeping, without_zeros
from tfkd.quantization.schemes import Scheme

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
    # Only the kernels, which quantized tensors replace in the inner layer, and trained variables of the quantizers; the
    # inner layer lists the other weights. tfmot lists each kernel twice.
    kernels = [weight for weight, _, _ in self._weight_vars]
    inner = {id(weight) for weight in [*kernels, *self.layer.weights]}
    self._trainable_weights = kernels + [v for v in self._trainable_weights if id(v) not in inner]
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

  @property
  def fuses_relu(self) -> bool:
    """Whether a training step computes the layer, a ReLU without maximum, with the operation that rounds its output."""
    is_relu = is_plain_relu(self.layer) and self.layer.max_value is None
    return is_relu and bool(self._output_quantizers) and isinstance(self._output_quantizers[0], _FROM_ZERO)

  def _make_quantizer_fn(self, quantizer, x, training, quantizer_vars):
    # Pruned weights have no gradient, which would count in its norm and in moving averages of weights.
    # A tensor, since functions with custom gradients refuse variables of several replicas.
    weight = tf.convert_to_tensor(without_zeros(x) if training else x)
    # The ranges of a frozen layer's kernel and output do not change.
    training = training and self.trainable
    if training and _is_per_channel(quantizer):
      return lambda: _round_per_channel(weight, quantizer, quantizer_vars)
    return super()._make_quantizer_fn(quantizer, weight, training, quantizer_vars)

  # tfmot lists quantized kernels among the trainable weights regardless of `trainable`.
  @property
  def trainable_weights(self) -> Sequence[tf.Variable]:
    return super().trainable_weights if self.trainable else []

  @property
  def non_trainable_weights(self) -> Sequence[tf.Variable]:
    frozen = [] if self.trainable else super().trainable_weights
    return self._dedup_weights(frozen + super().non_trainable_weights)

  def call(self, inputs: Any, training: bool | tf.Tensor | None = None, mask: Any = None, **kwargs: Any) -> Any:
    if training is True and self.trainable and self.fuses_relu:
      return self._output_quantizers[0](inputs, True, weights=self._output_quantizer_vars)
    if self.layer._expects_mask_arg:
      kwargs["mask"] = mask
    return super().call(inputs, training=training, **kwargs)

  def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
    # As Keras does for layers that are not wrapped: a layer that does not know masks ends them.
    return self.layer.compute_mask(inputs, mask) if self.layer.supports_masking else None

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
    least, most = self._range(inputs)
    low, high = (
      tf.__internal__.train.assign_moving_average(weights[name], value, _EMA_DECAY, zero_debias=False)
      for name, value in (("min_var", least), ("max_var", most))
    )
    is_relu = isinstance(self, _NeverNegative) and self._wrapper.fuses_relu
    return fake_quant.in_range(inputs, low, high, self.num_bits, self.narrow_range, is_relu)

  def _range(self, inputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the minimum and the maximum of the global batch, extended to contain 0."""
    flat = tf.reshape(inputs, [-1])  # The extremes of one axis are found three times as fast.
    low, high = -_max_of_replicas(-tf.reduce_min(flat)), _max_of_replicas(tf.reduce_max(flat))
    return tf.minimum(low, 0.0), tf.maximum(high, 0.0)


class _NeverNegative(_MovingAverage):
  """Moving average for features >= 0, whose minimum is 0 and is not computed."""

  def _range(self, inputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    return tf.zeros([]), tf.maximum(_max_of_replicas(tf.reduce_max(tf.reshape(inputs, [-1]))), 0.0)


_FROM_ZERO = (_NeverNegative, LearnedStepFeatures)


def _is_per_channel(quantizer: Any) -> bool:
  """Returns whether a quantizer is tfmot's for kernels with a range for each channel of the last axis."""
  last_value = tfmot.quantization.keras.quantizers.LastValueQuantizer
  is_last_value = isinstance(quantizer, last_value) and type(quantizer).__call__ is last_value.__call__
  return is_last_value and quantizer.per_axis and quantizer.symmetric and quantizer.narrow_range


def _round_per_channel(kernel: tf.Tensor, quantizer: Any, ranges: dict[str, Any]) -> tf.Tensor:
  """Rounds a kernel in the ranges of its values, which are stored, as the quantizer does."""
  rows = tf.reshape(kernel, [-1, kernel.shape[-1]])
  most = tf.maximum(tf.reduce_max(rows, 0), -tf.reduce_min(rows, 0))
  ranges["min_var"].assign(-most)
  ranges["max_var"].assign(most)
  return fake_quant.per_channel(kernel, most, quantizer.num_bits)


def _max_of_replicas(value: tf.Tensor) -> tf.Tensor:
  """Returns the maximum of a scalar over replicas."""
  replica = tf.distribute.get_replica_context()
  if replica is None or replica.num_replicas_in_sync == 1:
    return value
  return tf.reduce_max(replica.all_gather(tf.stop_gradient(value)[None], axis=0))


def wrapped(model: keras.Model, scheme: Scheme, float_layers: Collection[str], zeros: Zeros) -> keras.Model:
  """Returns a copy of a model in which wrappers round the tensors that a scheme configures.

  Args:
    model: `tf_keras` model that the scheme's `lower` returned.
    scheme: scheme of the quantization.
    float_layers: names of layers that stay in float. The output of one that a rounded layer reads is rounded.
    zeros: those that training keeps, in rounded layers and others.

  Returns:
    Functional `tf_keras` model with the same weights, whose rounded layers are called `quant_<name>`.
  """
  configurations = dict(scheme.configurations(model, float_layers))
  configurations.update(_outputs_of_float_layers(model, scheme, float_layers))
  forms = scheme.forms_in_file(model, float_layers)
  made: dict[str, keras.layers.Layer] = {}
  rounds: dict[str, QuantizeWrapper] = {}  # By name of a layer that cannot be wrapped.

  def call(node: Any, values: dict[int, Any]) -> Any:
    layer, (args, kwargs) = node.layer, graph.arguments(node, values)
    if layer.name not in made:
      new = forms.get(layer.name, type(layer)).from_config(keeping(layer, zeros))
      config = configurations.get(layer.name)
      takes_several = isinstance(layer, keras.layers.MultiHeadAttention)  # A wrapper has one argument for its inputs.
      if config is not None and takes_several:
        identity = keras.layers.Activation("linear", name=f"{layer.name}_output")
        rounds[layer.name] = QuantizeWrapper(identity, config)
      made[layer.name] = new if config is None or takes_several else QuantizeWrapper(new, config)
    outputs = made[layer.name](*args, **kwargs)
    return rounds[layer.name](outputs) if layer.name in rounds else outputs

  def rounded(tensor: Any) -> Any:
    if not (scheme.quantizes_inputs and tensor.dtype.is_floating):
      return tensor
    quantizer = tfmot.quantization.keras.quantizers.AllValuesQuantizer(
      num_bits=8, per_axis=False, symmetric=False, narrow_range=False
    )
    return QuantizeLayer(quantizer, name=f"quantize_layer_{tensor._keras_history.layer.name}")(tensor)

  new = graph.rebuild(model, call, rounded)
  for layer in model.layers:
    if layer.name in made:
      _set_weights(made[layer.name], layer)
  return new


def _outputs_of_float_layers(model: keras.Model, scheme: Scheme, float_layers: Collection[str]) -> dict[str, Any]:
  """Returns configurations of the float layers whose outputs rounded layers read."""
  read_by, found = graph.readers(model), {}
  for layer in model.layers:
    readers = [reader for tensors in read_by[layer.name] for reader in tensors if reader is not None]
    if layer.name in float_layers and any(reader.name not in float_layers for reader in readers):
      config = scheme.float_output(layer)
      if config is not None:
        found[layer.name] = config
  return found


def _set_weights(new: keras.layers.Layer, layer: keras.layers.Layer) -> None:
  """Copies the weights of a layer to its copy, wrapped or not: kernels come first in all layers that are wrapped."""
  is_wrapped = isinstance(new, QuantizeWrapper)
  variables = [kernel for kernel, _, _ in new._weight_vars] + new.layer.weights if is_wrapped else new.weights
  keras.backend.batch_set_value(zip(variables, layer.get_weights(), strict=True))


def set_kernel_ranges(model: keras.Model) -> None:
  """Sets the ranges of all kernels from their values, as training steps do for layers that are not frozen.

  Trained steps are set to their initial values.
  """
  for weight, quantizer, ranges in quantized_kernels(model):
    if isinstance(quantizer, LearnedStepWeights):
      quantizer.initialize(weight, ranges)
    else:
      quantizer(weight, True, weights=ranges)


def quantized_kernels(model: keras.Model) -> Iterator[tuple[tf.Variable, Any, dict[str, Any]]]:
  """Yields the kernels of a quantized model, each with its quantizer and the variables of this by name."""
  for layer in model.layers:
    if isinstance(layer, quantize_wrapper.QuantizeWrapper):
      yield from layer._weight_vars
