"""Checks of the arguments of `compile` and `fit`: Keras 3 objects, and losses that do not fit the outputs."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfkd.keras3 import is_keras3
from tfkd.ops.keras_losses import ON_PROBABILITIES, from_logits, function_name, is_on_classes


def refuse_keras3(**arguments: Any) -> None:
  """Raises TypeError for an object of Keras 3 in any of the arguments, which may be nested."""
  for argument, structure in arguments.items():
    for value in tf.nest.flatten(structure):
      module = getattr(value, "__module__", None) or ""
      if is_keras3(value) or (isinstance(module, str) and module.startswith("keras.src")):
        name = getattr(value, "__name__", type(value).__name__)
        raise TypeError(
          f"{argument} holds {name} of Keras 3, and the Distiller is a tf_keras model: take it from tf_keras, with "
          "`import tf_keras as keras`."
        )


def losses_by_output(container: Any, outputs: Any) -> list:
  """The losses given to `compile`, one or None for each of the flattened outputs.

  Args:
    container: the model's `compiled_loss`, or None.
    outputs: nested outputs, of which only the structure is read.
  """
  if container is None or container._user_losses is None:
    return [None] * len(tf.nest.flatten(outputs))
  losses = container._maybe_broadcast_to_outputs(outputs, container._user_losses)
  return tf.nest.flatten(container._conform_to_outputs(outputs, losses))


def has_sums(container: Any, outputs: Any) -> bool:
  """Whether a compiled loss is a sum over elements instead of a mean."""
  losses = losses_by_output(container, outputs)
  return any(getattr(loss, "reduction", None) == keras.losses.Reduction.SUM for loss in losses)


def is_on_logits(loss: Any) -> bool:
  """Whether a compiled loss is a cross-entropy over classes that expects logits."""
  return is_on_classes(loss) and from_logits(loss)


def check_is_scalar(loss: tf.Tensor) -> None:
  """Raises ValueError unless a hard loss is one number."""
  shape = tf.convert_to_tensor(loss).shape
  if shape.rank != 0:
    raise ValueError(
      f"the hard loss has shape {shape}, and one number is expected: compile with a loss whose reduction is not NONE, "
      "or return a mean over examples from `compute_loss`."
    )


def check_loss(loss: Any, ending: str | None, output: str, reads_classes: bool) -> None:
  """Raises ValueError if a compiled loss expects probabilities and the output is logits, or the reverse.

  Args:
    loss: string, function or loss object as given to `compile`, or None.
    ending: last activation of the output, see `tfkd.ops.probabilities.endings`.
    output: name of the output, for the message.
    reads_classes: whether an objective reads the output as logits.
  """
  function = function_name(loss)
  if function not in ON_PROBABILITIES:
    return
  if from_logits(loss):
    if ending in ("softmax", "sigmoid"):
      raise ValueError(
        f"output {output} of the student ends in {ending}, and its loss {function} has from_logits=True: leave the "
        f"{ending} out of the student."
      )
  elif ending == "values" or ending is None and reads_classes:
    name = ON_PROBABILITIES[function]
    line = f"loss=keras.losses.{name}(from_logits=True)" if name else "tfkd.objectives.SoftTargets(1.0)"
    raise ValueError(
      f"output {output} of the student gives logits, and its loss {function} expects probabilities: write {line}."
    )


def check_metrics(metrics: Any, ends: Sequence[str | None] | None) -> None:
  """Raises ValueError for a metric that expects probabilities if no output can be probabilities.

  Args:
    metrics: nested metrics as given to `compile`.
    ends: last activation of each output, or None if unknown.
  """
  if ends is None or any(ending != "values" for ending in ends):
    return
  for metric in tf.nest.flatten(metrics):
    function = function_name(metric)
    if function in ON_PROBABILITIES and not from_logits(metric):
      name = ON_PROBABILITIES[function]
      line = f"write keras.metrics.{name}(from_logits=True)" if hasattr(keras.metrics, str(name)) else "leave it out"
      raise ValueError(f"the student gives logits, and metric {function} expects probabilities: {line}.")


def check_class_weight(x: Any, y: Any, output: Any) -> None:
  """Raises ValueError if Keras would read the last axis of class indices as classes.

  Args:
    x, y: arguments of `fit`; of a data set the element specification is read.
    output: symbolic output of the student, or None.
  """
  if isinstance(x, tf.data.Dataset):
    y = x.element_spec[1] if isinstance(x.element_spec, tuple) and len(x.element_spec) > 1 else None
  if output is None or y is None or tf.nest.is_nested(output) or tf.nest.is_nested(y):
    return
  rank = tf.TensorShape(y.shape).rank if hasattr(y, "shape") else None
  if rank is not None and rank >= 2 and rank == output.shape.rank - 1:
    raise ValueError(
      f"class_weight with class indices of {rank} axes: Keras reads the last axis as classes; give labels a last axis "
      "of length one, labels[..., None]."
    )
