"""The protocol of quantization schemes."""

import abc
from collections.abc import Collection, Mapping, Sequence
from typing import ClassVar, Literal, TypeAlias

import tensorflow_model_optimization as tfmot
import tf_keras as keras

ExportKind: TypeAlias = Literal["tflite", "pack"]
Quantizer: TypeAlias = tfmot.quantization.keras.quantizers.Quantizer


class Scheme(abc.ABC):
  """Defines how the weights and features of a student are rounded, and which layers can be.

  A new scheme is a subclass in a module of this package and an entry of `SCHEMES`. Instances are immutable, equal if
  their options are equal, and `str(scheme)` is the name that `parse` reads.
  """

  forms: ClassVar[str]
  """The names that `parse` accepts, for error messages."""
  needs_calibration: ClassVar[bool]
  """Whether the ranges of features are learned, and must be set from data before the first step."""
  starts_from_float: ClassVar[bool]
  """Whether training is a fine-tuning of a trained float network; False if it starts from random weights."""
  export_kind: ClassVar[ExportKind]
  """"tflite" if LiteRT computes in the integers of this scheme. "pack" if it has no kernels for them: `deploy.pack`
  writes the small file, and the TFLite file reproduces the rounding in float32."""
  quantizes_inputs: ClassVar[bool]
  """Whether float inputs of the model are rounded."""
  has_zero: ClassVar[bool] = True
  """Whether a weight of 0 is rounded to 0."""

  weight_bits: int
  feature_bits: int

  @classmethod
  @abc.abstractmethod
  def parse(cls, name: str) -> "Scheme | None":
    """Returns the scheme with this name, or None if the name has another form."""

  @classmethod
  @abc.abstractmethod
  def read(cls, weights: Mapping[str, Quantizer], features: Sequence[Quantizer]) -> "Scheme | None":
    """Returns the scheme that created the quantizers of a model, or None if it was another.

    Args:
      weights: quantizer of the kernel by name of the layer; embeddings are not among them.
      features: all quantizers of features.
    """

  @abc.abstractmethod
  def problem(self, layer: keras.layers.Layer) -> str | None:
    """Returns why this layer cannot be quantized and what to do about it, or None if it can."""

  def model_problem(self, quantized_layers: Sequence[keras.layers.Layer]) -> str | None:
    """Returns why a model of these layers cannot be quantized although each of them can, or None if it can."""
    del quantized_layers
    return None

  def default_float_layers(self, model: keras.Model) -> list[str]:
    """Returns the names of the layers that stay in float unless the caller chooses others."""
    del model
    return []

  def lower(self, model: keras.Model, float_layers: Collection[str]) -> keras.Model:
    """Returns an equal model in which each layer is rounded as a whole; `model` itself if it is one."""
    del float_layers
    return model

  def forms_in_file(self, model: keras.Model, float_layers: Collection[str]) -> Mapping[str, type[keras.layers.Layer]]:
    """Returns classes with other arithmetic for layers of a model that `lower` returned, by name."""
    del model, float_layers
    return {}

  @abc.abstractmethod
  def configurations(
    self, model: keras.Model, float_layers: Collection[str]
  ) -> Mapping[str, tfmot.quantization.keras.QuantizeConfig]:
    """Returns tfmot's configuration of each layer that is rounded, by name, for a model that `lower` returned."""

  def float_output(self, layer: keras.layers.Layer) -> tfmot.quantization.keras.QuantizeConfig | None:
    """Returns a configuration that rounds the output of a float layer for the layers that read it, or None."""
    del layer
    return None

  def __str__(self) -> str:
    return f"w{self.weight_bits}a{self.feature_bits}"


def quantizer_bits(quantizer: Quantizer) -> int:
  """Returns the number of bits that a quantizer of tfmot or tfkd rounds to."""
  return getattr(quantizer, "bits", None) or quantizer.num_bits
