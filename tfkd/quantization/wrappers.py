"""tfmot's two wrapping layers, made to survive Keras' own `.keras` format.

tfmot 0.8.1 builds `QuantizeLayer` twice on loading and lists a wrapped kernel twice among the trainable weights, so
that a `.keras` file is written without a word and cannot be read. Models made by `tfkd.quantization.quantize` hold
these subclasses instead. They quantize as tfmot's do, to the last bit, and search features after ReLU for no minimum.
"""

import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras as keras
from tensorflow_model_optimization.python.core.quantization.keras import quantize_layer, quantize_wrapper

_EMA_DECAY = 0.999  # tfmot's, which is part of its code.

# Models load without `tfmot.quantization.keras.quantize_scope()`: its classes are made known to Keras once.
for _objects in tfmot.quantization.keras.quantize_scope().custom_objects:
  keras.saving.get_custom_objects().update(_objects)


@keras.saving.register_keras_serializable(package="tfkd")
class QuantizeLayer(quantize_layer.QuantizeLayer):
  """Quantizes the input of a model."""

  def get_build_config(self):
    return None  # Built on the first call, once.


@keras.saving.register_keras_serializable(package="tfkd")
class QuantizeWrapper(quantize_wrapper.QuantizeWrapperV2):
  """Quantizes weights, activation and output of the layer it wraps."""

  def build(self, input_shape):
    super().build(input_shape)
    # Only the kernels that quantized tensors replace in the inner layer; the inner layer lists the others itself.
    self._trainable_weights = [weight for weight, _, _ in self._weight_vars]
    if _is_never_negative(self.layer):
      self._output_quantizers = [_of_never_negative(quantizer) for quantizer in self._output_quantizers]

  def get_build_config(self):
    return None

  def get_config(self):
    config = super().get_config()
    # Built by this wrapper, under its name: HDF5 refuses two optimizer slots called "kernel".
    config["layer"].pop("build_config", None)
    return config


class _NeverNegative(tfmot.quantization.keras.quantizers.MovingAverageQuantizer):
  """tfmot's moving average for features >= 0: whose least is 0 need not be searched in every step."""

  def __call__(self, inputs, training, weights, **kwargs):
    if not training:
      return super().__call__(inputs, training, weights, **kwargs)
    low, high = (
      tf.__internal__.train.assign_moving_average(weights[name], value, _EMA_DECAY, zero_debias=False)
      for name, value in (("min_var", tf.zeros([])), ("max_var", tf.reduce_max(inputs)))
    )
    return tf.quantization.fake_quant_with_min_max_vars(
      inputs, low, high, num_bits=self.num_bits, narrow_range=self.narrow_range
    )


def _is_never_negative(layer):
  return isinstance(layer, keras.layers.ReLU) and not layer.negative_slope and not layer.threshold


def _of_never_negative(quantizer):
  """The same quantizer, without the search for negative features where it would make one."""
  plain = type(quantizer) is tfmot.quantization.keras.quantizers.MovingAverageQuantizer
  if plain and not (quantizer.symmetric or quantizer.per_axis):
    return _NeverNegative(**quantizer.get_config())
  return quantizer


def make_saveable(model):
  """Returns an equal model in which tfmot's wrapping layers are those of this module."""
  config = model.get_config()
  for layer in config["layers"]:
    ours = {"QuantizeLayer": QuantizeLayer, "QuantizeWrapperV2": QuantizeWrapper}.get(layer["class_name"])
    if ours:
      layer.update(class_name=ours.__name__, module=ours.__module__, registered_name=f"tfkd>{ours.__name__}")
      layer.pop("build_config", None)
      layer["config"].get("layer", {}).pop("build_config", None)
  copy = type(model).from_config(config)
  copy.set_weights(model.get_weights())
  return copy
