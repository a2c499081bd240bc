"""Keras' loss functions behind names, functions, loss objects and metrics."""

import functools
from typing import Any

import tf_keras as keras

# Keras' functions that expect probabilities unless `from_logits=True`, and their classes.
ON_PROBABILITIES = {
  "categorical_crossentropy": "CategoricalCrossentropy",
  "sparse_categorical_crossentropy": "SparseCategoricalCrossentropy",
  "binary_crossentropy": "BinaryCrossentropy",
  "categorical_focal_crossentropy": "CategoricalFocalCrossentropy",
  "binary_focal_crossentropy": "BinaryFocalCrossentropy",
  "kl_divergence": None,
}
_OF_CLASSES = {"categorical_crossentropy", "sparse_categorical_crossentropy", "categorical_focal_crossentropy"}


def is_on_classes(loss: Any) -> bool:
  """Whether a loss is a cross-entropy over classes, so that the outputs are class scores."""
  return function_name(loss) in _OF_CLASSES


def function_name(loss: Any) -> str | None:
  """Name of the Keras function that a loss computes, or None."""
  if isinstance(loss, str):
    try:
      loss = keras.losses.get(loss)
    except ValueError:  # Keras reports it.
      return None
  if isinstance(loss, functools.partial):
    return function_name(loss.func)
  function = getattr(loss, "fn", getattr(loss, "_fn", loss))  # Of losses and of metrics.
  if not getattr(function, "__module__", "").startswith("tf_keras."):
    return None
  return getattr(function, "__name__", None)


def from_logits(loss: Any) -> bool:
  """Whether a Keras loss was told that outputs are logits."""
  if isinstance(loss, functools.partial):
    return bool(loss.keywords.get("from_logits")) or from_logits(loss.func)
  return bool(getattr(loss, "_fn_kwargs", {}).get("from_logits") or getattr(loss, "from_logits", False))
