"""Keeps the zeros of a pruned float student in training. Quantized students keep theirs by themselves."""

from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras
from absl import logging

from tfkd.ops.zeros import pruned_kernels

_QUANTIZED, _PRUNING = "QuantizeWrapper", "PruneLowMagnitude"  # tfmot's classes, which are not imported for this.


class KeptZeros:
  """The zeros that the trainable kernels of a student have before a fit.

  They are read again before each fit, since a student may be pruned further or get other weights, and are no variables.

  Args:
    student: `tf_keras` model.
  """

  def __init__(self, student: keras.Model):
    self._student = student
    self._kept: list[tuple[Any, np.ndarray]] = []
    self.are_read = False

  def read(self, keep: bool) -> bool:
    """Reads the zeros from the student's kernels, or forgets them.

    Returns:
      Whether they changed, so that a traced step holds others.
    """
    before, found, self.are_read = self._kept, {}, True
    layers = _layers(self._student) if keep and self._student.built else []
    trained = {_key(variable) for variable in self._student.trainable_variables} if layers else set()
    for layer in layers:
      for variable, zeros in pruned_kernels(layer).values():
        if _key(variable) in trained:
          found[_key(variable)] = variable, zeros
    self._kept = list(found.values())
    has_changed = len(before) != len(self._kept) or any(
      old is not new or not np.array_equal(was, zeros)
      for (old, was), (new, zeros) in zip(before, self._kept, strict=True)
    )
    if has_changed and self._kept:
      listed = ", ".join(f"{variable.name.partition(':')[0]} ({zeros.mean():.0%})" for variable, zeros in self._kept)
      logging.warning("zeros of pruned kernels are kept (keep_zeros=False trains them): %s", listed)
    return has_changed

  def restore(self) -> None:
    """Sets the kept entries to 0 after an update, as Keras applies constraints."""
    for variable, zeros in self._kept:
      variable.assign(tf.where(zeros, tf.zeros([], variable.dtype), variable))

  def finish(self) -> None:
    """Restores zeros after a fit, which Keras may end by moving averages of weights; also in quantized students."""
    self.restore()
    for variable in self._student.trainable_variables if self._student.built else ():
      if variable.constraint is not None:
        variable.assign(variable.constraint(variable))


def _key(variable: Any) -> int:
  return id(getattr(variable, "_variable", variable))  # Mixed precision wraps variables.


def _layers(student: keras.Model) -> list[keras.layers.Layer]:
  """Returns the layers of a float student, without those whose zeros tfmot's pruning chooses; none if quantized."""
  layers = list(student._flatten_layers())
  inside = {_PRUNING: set(), _QUANTIZED: set()}
  for layer in layers:
    for name in inside:
      if any(kind.__name__ == name for kind in type(layer).__mro__):
        inside[name].update(map(id, layer._flatten_layers()))
  return [] if inside[_QUANTIZED] else [layer for layer in layers if id(layer) not in inside[_PRUNING]]
