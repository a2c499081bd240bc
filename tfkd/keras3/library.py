"""Access to Keras 3, which is imported when a model of it is converted."""

import inspect
from typing import Any


def is_keras3(value: Any) -> bool:
  """Distinguishes Keras 3 objects from those of `tf_keras`, without importing Keras 3."""
  return any(base.__module__.startswith("keras.src") for base in type(value).__mro__)


def library() -> Any:
  """Imports Keras 3.

  Raises:
    RuntimeError: it runs on another backend than TensorFlow.
  """
  import keras

  backend = keras.backend.backend()
  if backend != "tensorflow":
    raise RuntimeError(
      f"Keras 3 runs on the backend {backend!r}, and models are converted on TensorFlow: set the environment variable "
      "KERAS_BACKEND=tensorflow before Keras is imported, save the model there with `model.save`, and load it."
    )
  return keras


def constructor_defaults(cls: type) -> dict[str, Any]:
  """Parameters of a class' constructor and its bases, with their defaults; `inspect.Parameter.empty` without one."""
  found = {}
  for base in reversed(cls.__mro__):
    if "__init__" in vars(base) and base is not object:
      parameters = list(inspect.signature(base.__init__).parameters.values())[1:]
      found.update({p.name: p.default for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)})
  return found
