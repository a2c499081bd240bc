"""tfmot's two wrapping layers, made to survive Keras' own `.keras` format.

tfmot 0.8.1 builds `QuantizeLayer` twice on loading and lists a wrapped kernel twice among the trainable weights, so
that a `.keras` file is written without a word and cannot be read. Models made by `tfkd.quantization.quantize` hold
these subclasses instead; everything else about them is tfmot's.
"""

import tensorflow_model_optimization as tfmot
import tf_keras as keras
from tensorflow_model_optimization.python.core.quantization.keras import quantize_layer, quantize_wrapper

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

  def get_build_config(self):
    return None

  def get_config(self):
    config = super().get_config()
    # Built by this wrapper, under its name: HDF5 refuses two optimizer slots called "kernel".
    config["layer"].pop("build_config", None)
    return config


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
