"""Names of activation functions."""

from typing import Any


def activation_name(activation: Any) -> str:
  """Returns the name of an activation function or layer, as used by tfmot and in messages."""
  return getattr(activation, "__name__", type(activation).__name__)
