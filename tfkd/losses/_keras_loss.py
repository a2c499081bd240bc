"""Keras' losses between the outputs or features of two models."""

from collections.abc import Callable

import tensorflow as tf
import tf_keras as keras

from tfkd.ops.checks import check_same_shape
from tfkd.ops.keras_losses import ON_PROBABILITIES, function_name
from tfkd.ops.norms import as_float32

_ON_LABELS = ("hinge", "squared_hinge", "categorical_hinge")


def keras_loss(teacher: tf.Tensor, student: tf.Tensor, loss: str | Callable = "mse") -> tf.Tensor:
  """Computes a Keras loss with the teacher's values in place of labels, for each element.

  Args:
    teacher: float [..., values].
    student: float [..., values]. A tensor of one axis, [batch], counts as one value for each example.
    loss: name of a Keras loss, such as "mse", "mae", "huber", "log_cosh" or "cosine_similarity" (whose minimum is -1);
      a `tf_keras.losses.Loss`, whose reduction is not applied; or a function of (teacher, student) to [...].

  Returns:
    float32 [...], the loss over the last axis.

  Raises:
    TypeError: loss is neither a name nor a function, or is of Keras 3.
    ValueError: the shapes differ, the loss is unknown or reads labels or probabilities, or its values are not [...].
  """
  function = per_element(loss)
  teacher, student = as_float32(teacher), as_float32(student)
  check_same_shape(teacher, student, "teacher values", "student values")
  if student.shape.rank == 1:
    teacher, student = teacher[:, None], student[:, None]
  values = tf.cast(function(teacher, student), tf.float32)
  if not values.shape.is_compatible_with(student.shape[:-1]):
    raise ValueError(
      f"loss {loss!r} must return one value for each element, {student.shape[:-1]}; got {values.shape}: reduce only "
      "the last axis."
    )
  return values


def per_element(loss: str | Callable) -> Callable:
  """Returns a function of (teacher, student) from the argument `loss` of `keras_loss`.

  Raises:
    TypeError, ValueError: see `keras_loss`.
  """
  if isinstance(loss, str):
    try:
      loss = keras.losses.get(loss)
    except ValueError:
      raise ValueError(
        f'loss must be the name of a Keras loss, such as "mse", "huber" or "cosine_similarity"; got {loss!r}.'
      ) from None
  if not callable(loss) or type(loss).__module__.startswith("keras.src"):
    raise TypeError(f"loss must be the name of a Keras loss, a tf_keras loss or a function; got {loss!r}.")
  name = function_name(loss)
  if name in ON_PROBABILITIES or name in _ON_LABELS:
    raise ValueError(
      f"loss {name} expects labels or probabilities, and the teacher gives values or logits: for classes use "
      "tfkd.objectives.SoftTargets, for independent labels BinarySoftTargets."
    )
  return loss.call if isinstance(loss, keras.losses.Loss) else loss
