"""Sets the ranges of moving-average quantizers from data, before the first step.

tfmot starts every range at [-6, 6] and moves it by a thousandth of the difference per step, so that without calibration
the ranges are wrong for the first three thousand steps.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras
from tensorflow_model_optimization.python.core.quantization.keras import quantize_layer, quantize_wrapper

from tfkd.quantization.inputs import input_batches
from tfkd.quantization.learned_quantizers import LearnedStepFeatures, sample

NUM_BATCHES = 20
_TFMOT_LEAST = -6.0


def calibrate(model: keras.Model, data: Any, num_batches: int = NUM_BATCHES) -> None:
  """Sets every range of a quantized model to the mean of the ranges of single batches.

  Steps that are trained are set to those that round the features of the first batches with the least error.

  Args:
    model: quantized `tf_keras` model; its ranges change, its weights and batch normalisation statistics do not.
    data: inputs in any form that `model.fit` takes, see `input_batches`. Arrays may be sorted by class; a data set
      should not be, since only its first batches are read.
    num_batches: maximum number of batches. Of arrays, batches of 128 examples are spread evenly over the array.

  Raises:
    ValueError: data yields no batch, does not fit the model's inputs, or gives outputs that are not finite.
  """
  observe(model, data, num_batches)
  _check_ranges(model)
  _widen(model)


def observe(model: keras.Model, data: Any, num_batches: int = NUM_BATCHES) -> None:
  """Does the work of `calibrate`, without a check of the ranges."""
  moving = [v for v in model.non_trainable_variables if "moving_" in v.name]
  before = [v.numpy() for v in moving]
  seen = 0
  with _observing(model):
    for inputs in input_batches(model, data, num_batches):
      # training=True also sets the ranges of the weights.
      model(tf.nest.pack_sequence_as(model._nested_inputs, inputs), training=True)
      seen += 1
  for variable, value in zip(moving, before, strict=True):
    variable.assign(value)
  if not seen:
    raise ValueError("calibration data yielded no batch: give at least one example.")


def _check_ranges(model: keras.Model) -> None:
  for layer in model.layers:
    ranges = [v for v in layer.weights if v.name.endswith(("_min:0", "_max:0", "_log_step:0"))]
    if not all(np.isfinite(v.numpy()).all() for v in ranges):
      raise ValueError(
        f"the range of layer '{layer.name.removeprefix('quant_')}' is not finite on the calibration data, since its "
        "outputs are infinite or NaN: check the model's weights and the scale of its inputs."
      )


def _widen(model: keras.Model) -> None:
  """Sets the range of features that are 0 on all examples to [0, 1]: LiteRT cannot compute in a range without width."""
  for layer in model.layers:
    ranges = {v.name: v for v in layer.non_trainable_weights if v.shape.rank == 0}
    for name, high in ranges.items():
      low = ranges.get(name.replace("_max:0", "_min:0"))
      if name.endswith("_max:0") and low is not None and low.numpy() == high.numpy() == 0:
        high.assign(1.0)


def is_uncalibrated(model: keras.Model) -> bool:
  """Returns whether ranges of a quantized model still have tfmot's initial values, so that its outputs are wrong."""
  least = (v for v in model.non_trainable_variables if v.shape.rank == 0 and v.name.endswith("_min:0"))
  return any(v.numpy() == _TFMOT_LEAST for v in least) or any(map(_has_initial_step, model.layers))


def _has_initial_step(layer: Any) -> bool:
  if not isinstance(layer, quantize_wrapper.QuantizeWrapper) or not layer._output_quantizers:
    return False
  (quantizer, *_), steps = layer._output_quantizers, layer._output_quantizer_vars
  return isinstance(quantizer, LearnedStepFeatures) and quantizer.is_initial(steps)


class _Observer:
  """Replaces a quantizer of features, and quantizes with the range of the batches that it has seen.

  The range of a moving average is set to the mean over batches, a trained step to the best one for all batches.
  """

  def __init__(self, quantizer: Any):
    self._quantizer = quantizer
    self._counts: dict[int, int] = {}  # By variable: some activations use one quantizer for two tensors.
    self._samples: list[np.ndarray] = []

  def __call__(self, inputs, training, weights, **kwargs):
    if isinstance(self._quantizer, LearnedStepFeatures):
      self._samples.append(sample(inputs))
      if len(self._samples) & (len(self._samples) - 1) == 0:  # After 1, 2, 4, ... batches: it takes a moment.
        self._quantizer.initialize(np.concatenate(self._samples), weights)
      return self._quantizer(inputs, False, weights=weights)
    count = self._counts[id(weights["min_var"])] = self._counts.get(id(weights["min_var"]), 0) + 1
    # TFLite requires 0 in every range.
    low, high = tf.minimum(tf.reduce_min(inputs), 0.0), tf.maximum(tf.reduce_max(inputs), 0.0)
    for variable, value in ((weights["min_var"], low), (weights["max_var"], high)):
      variable.assign(value if count == 1 else variable + (value - variable) / count)
    return self._quantizer(inputs, False, weights=weights)


@contextlib.contextmanager
def _observing(model: keras.Model) -> Iterator[None]:
  """Replaces every quantizer of features with an observer for the duration of the block."""
  undo = []

  def observe(owner: Any, attribute: str, quantizer: Any, replacement: Callable[[_Observer], Any]) -> None:
    undo.append((owner, attribute, getattr(owner, attribute)))
    # Bypasses Keras' attribute tracking, which would wrap the list and make the observer a part of the model.
    owner.__dict__[attribute] = replacement(_Observer(quantizer))

  for layer in model.layers:
    if isinstance(layer, quantize_layer.QuantizeLayer) and layer.quantizer:
      observe(layer, "quantizer", layer.quantizer, lambda o: o)
    elif isinstance(layer, quantize_wrapper.QuantizeWrapper):
      if layer._output_quantizers and layer._output_quantizer_vars:
        observe(layer, "_output_quantizers", layer._output_quantizers[0], lambda o: [o])
      for activation in layer._quantize_activations:
        quantizer = activation.quantizer
        if quantizer is not None:
          observe(activation, "quantizer", quantizer, lambda o: o)
  try:
    yield
  finally:
    for owner, attribute, value in undo:
      owner.__dict__[attribute] = value
