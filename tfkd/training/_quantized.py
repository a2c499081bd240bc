"""Quantization-aware distillation (QAD): trains a quantized copy of a network on the outputs of a teacher."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow as tf
import tf_keras as keras
from absl import logging

from tfkd.distiller.distiller import Distiller
from tfkd.keras3 import as_tf_keras
from tfkd.objectives import SoftTargets
from tfkd.quantization import Scheme, quantize, scheme_of
from tfkd.quantization.inputs import input_arrays


class Quantized(NamedTuple):
  """A quantized student, and what quantization and training did to it."""

  student: keras.Model
  """The quantized student."""
  agreement_before: float
  """Share of the validation examples that student and float student classify alike, before training."""
  agreement: float
  """The same after training."""
  epochs: int
  """Number of epochs of training; 0 if none was needed."""
  history: dict[str, list[float]]
  """Logs by epoch, as of Keras' `fit`."""


def distill(
  student: keras.Model,
  teacher: Any,
  scheme: str | Mapping[str, str] | Scheme,
  data: Any,
  *,
  validation_data: Any = None,
  epochs: int = 10,
  batch_size: int = 128,
  optimizer: keras.optimizers.Optimizer | None = None,
  temperature: float = 1.0,
  acceptable_change: float = 0.01,
  patience: int = 2,
  float_layers: Sequence[str] | None = None,
) -> Quantized:
  """Quantizes a trained float classifier, and trains the copy on the outputs of a teacher, without labels.

  The copy starts from the float weights, with ranges or steps that fit the data. If the quantization alone changes few
  decisions, it is not trained. Training minimizes KL(teacher || copy) and stops when the loss has not improved for
  `patience` epochs; the best weights are kept, those before the training if it made nothing better. For other
  objectives, labels or callbacks, use `quantize` and `Distiller(teacher, copy, [SoftTargets(1.0)],
  hard_loss_weight=0)`, which is what this function does.

  Source: Xin et al. 2026, arXiv:2601.20088 (KL to the float original alone), as in NVIDIA ModelOpt's recipes.

  Args:
    student: trained functional or `Sequential` model of one output, the logits; one of Keras 3 is converted. It is not
      changed.
    teacher: any teacher of `Distiller`, such as a larger network; None for the float student itself.
    scheme: see `tfkd.quantization.quantize`.
    data: inputs, as an array, a dict or list of arrays, or a `tf.data` data set of batches; labels are not read.
      Inputs should look like those of the student's own training, augmentation included.
    validation_data: inputs in the same forms, on which decisions are compared and the loss is watched; None for `data`.
    epochs: largest number of epochs.
    batch_size: examples per step, of arrays.
    optimizer: None for Adam with a learning rate of 5e-4.
    temperature: of the soft targets.
    acceptable_change: share of decisions; training stops before it starts if the quantization changes no more of them.
      0 trains unless no decision changes.
    patience: see above.
    float_layers: see `tfkd.quantization.quantize`.

  Returns:
    `Quantized`.

  Raises:
    ValueError: see `tfkd.quantization.quantize`, or the outputs are no logits of several classes.
  """
  student = as_tf_keras(student, "student")
  copy = quantize(student, scheme, calibration_data=data, float_layers=float_layers)
  name = scheme_of(copy)
  validation = _batches(student, data if validation_data is None else validation_data, batch_size)
  objective = SoftTargets(temperature=temperature)
  compared = distiller = Distiller(student, copy, [objective], hard_loss_weight=0.0)
  if teacher is not None:
    distiller = Distiller(teacher, copy, [SoftTargets(temperature=temperature)], hard_loss_weight=0.0)
    compared.compile()
  distiller.compile(optimizer or keras.optimizers.Adam(5e-4))
  measured = _evaluated(compared, validation)
  before = measured["agreement"]
  if 1 - before <= acceptable_change:
    logging.info(
      "%s changes %.2f %% of the decisions, no more than the acceptable %.2f %%: it is not trained.",
      name, 100 * (1 - before), 100 * acceptable_change,
    )  # fmt: skip
    return Quantized(copy, before, before, 0, {})
  logging.info("%s changes %.2f %% of the decisions: it is trained on the teacher's outputs.", name, 100 * (1 - before))
  start = copy.get_weights()
  loss = (measured if distiller is compared else _evaluated(distiller, validation))["loss"]
  stop = keras.callbacks.EarlyStopping("val_loss", patience=patience, restore_best_weights=True)
  train = _batches(student, data, batch_size, shuffles=True)
  history = distiller.fit(train, epochs=epochs, validation_data=validation, callbacks=[stop], verbose=2).history
  if not min(history["val_loss"]) < loss:
    logging.warning("training did not lower the loss of %.4f on the validation data: the weights before it stay.", loss)
    copy.set_weights(start)
  after = _evaluated(compared, validation)["agreement"]
  logging.info("%s changes %.2f %% of the decisions after training.", name, 100 * (1 - after))
  return Quantized(copy, before, after, len(history["loss"]), history)


def _batches(model: keras.Model, data: Any, batch_size: int, shuffles: bool = False) -> tf.data.Dataset:
  """Returns batches of (inputs,) from data in any form that `distill` takes."""
  if isinstance(data, tf.data.Dataset):
    return data.map(lambda *element: (element[0],))
  arrays = input_arrays(model, data)
  found = tf.data.Dataset.from_tensor_slices((tf.nest.pack_sequence_as(model._nested_inputs, arrays),))
  return (found.shuffle(len(arrays[0])) if shuffles else found).batch(batch_size).prefetch(2)


def _evaluated(distiller: Distiller, batches: tf.data.Dataset) -> dict[str, float]:
  return {name: float(value) for name, value in distiller.evaluate(batches, verbose=0, return_dict=True).items()}
