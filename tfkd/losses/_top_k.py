"""Class distributions of which the largest logits are known, and the probability of the other classes together."""

import math

import tensorflow as tf

from tfkd.ops.checks import Scalar, check_temperature
from tfkd.ops.norms import as_float32

_NONE = -1e9
"""Logit of a class without probability; finite, so that gradients are."""
_LEAST_REST = -6e4
"""Log-sum of no classes, which float16 can hold."""


class TopK(tf.experimental.ExtensionType):
  """The k largest logits of each row, and the log-sum of the others, as a cache with `top_k` holds them.

  Attributes:
    values: float32 [..., k], the largest logits, largest first.
    classes: int32 [..., k], their classes.
    log_rest: float32 [...], log of the sum of exp over the logits of all other classes; any number if there are none.
  """

  values: tf.Tensor
  classes: tf.Tensor
  log_rest: tf.Tensor

  @property
  def shape(self) -> tf.TensorShape:
    """Shape of `values`."""
    return self.values.shape


def top_k(logits: tf.Tensor, k: int) -> TopK:
  """Returns the k largest logits of each row, their classes, and the log-sum of the others.

  Args:
    logits: float [..., classes], with at least k classes.
    k: number of logits to keep, >= 1.
  """
  logits = as_float32(logits)
  values, classes = tf.math.top_k(logits, k)
  return TopK(values, classes, tf.maximum(_log_sum(logits, classes, 1.0), _LEAST_REST))


def with_rest(teacher: TopK, student_logits: tf.Tensor, temperature: Scalar = 1.0) -> tuple[tf.Tensor, tf.Tensor]:
  """Returns logits over the teacher's k classes and all other classes as one.

    softmax(result / T) = (p_1, ..., p_k, 1 - p_1 - ... - p_k),  p = softmax(logits / T)

  A divergence of the results is at most that of the whole distributions, and equal to it if k is the number of classes.
  The student's probability of the rest is exact. The teacher's is exact at T = 1; at other temperatures the classes of
  the rest share it equally, as far as is known.

  Args:
    teacher: outputs of the teacher.
    student_logits: float [..., classes].
    temperature: T, by which the results will be divided.

  Returns:
    Pair of float32 [..., k + 1], of teacher and student; [..., k] if k is the number of classes.

  Raises:
    ValueError: the student has fewer than k classes, or temperature is not positive and finite.
  """
  check_temperature(temperature)
  student, rest = as_float32(student_logits), _size_of_rest(teacher, student_logits)
  top = tf.gather(student, teacher.classes, axis=-1, batch_dims=student.shape.rank - 1)
  if not rest:
    return teacher.values, top
  of_teacher = teacher.log_rest + (temperature - 1.0) * math.log(rest)
  of_student = _log_sum(student, teacher.classes, temperature)
  return _with_columns(teacher.values, of_teacher), _with_columns(top, of_student)


def with_label_and_rest(
  teacher: TopK, student_logits: tf.Tensor, labels: tf.Tensor, temperature: Scalar = 1.0
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
  """Returns logits over the teacher's k classes, the label if it is none of them, and all other classes as one.

  The teacher's probability of a label that is not among the k classes is an equal share of the rest.

  Args:
    teacher: outputs of the teacher, [batch, k].
    student_logits: float [batch, classes].
    labels: int32 [batch], in 0..classes - 1.
    temperature: see `with_rest`.

  Returns:
    float32 [batch, k + 2] of teacher and student, and int32 [batch], the position of the label in them. Classes that do
    not occur have logits of -1e9. Without the last two columns if k is the number of classes.

  Raises:
    ValueError: see `with_rest`.
  """
  check_temperature(temperature)
  student, rest = as_float32(student_logits), _size_of_rest(teacher, student_logits)
  top = tf.gather(student, teacher.classes, axis=1, batch_dims=1)
  is_label = tf.equal(teacher.classes, labels[:, None])
  position = tf.argmax(is_label, axis=1, output_type=tf.int32)
  if not rest:
    return teacher.values, top, position
  is_known = tf.reduce_any(is_label, axis=1)
  share = teacher.log_rest - math.log(rest)  # Logit of each class of the rest, as far as is known.
  count = tf.where(is_known, float(rest), rest - 1.0)
  of_rest = tf.where(count > 0, share + temperature * tf.math.log(tf.maximum(count, 1.0)), _NONE)
  of_label = tf.where(is_known, _NONE, tf.gather(student, labels, batch_dims=1))
  others = tf.concat([teacher.classes, labels[:, None]], axis=1)
  return (
    _with_columns(teacher.values, tf.where(is_known, _NONE, share), of_rest),
    _with_columns(top, of_label, _log_sum(student, others, temperature)),
    tf.where(is_known, position, teacher.values.shape[1]),
  )


def _with_columns(values: tf.Tensor, *columns: tf.Tensor) -> tf.Tensor:
  """Appends columns [...] to values [..., k]."""
  return tf.concat([values, tf.stack(columns, axis=-1)], axis=-1)


def _size_of_rest(teacher: TopK, student_logits: tf.Tensor) -> int:
  """Returns the number of classes that are not among the teacher's.

  Raises:
    ValueError: the shapes do not fit.
  """
  shape, k = student_logits.shape, teacher.values.shape[-1]
  if shape.rank != teacher.values.shape.rank or not shape[:-1].is_compatible_with(teacher.values.shape[:-1]):
    raise ValueError(
      f"the teacher's largest logits have shape {teacher.values.shape}, and the student's logits {shape}: expected "
      "shapes that agree in all axes but the last."
    )
  if shape[-1] < k:
    raise ValueError(
      f"the teacher's outputs have {k} classes each, and the student has {shape[-1]}: build it with the number of "
      "classes of the data."
    )
  return shape[-1] - k


def _log_sum(logits: tf.Tensor, left_out: tf.Tensor, temperature: Scalar) -> tf.Tensor:
  """Returns T log sum_c exp(logits_c / T) over the classes that are not left out.

  Args:
    logits: float32 [..., classes].
    left_out: int32 [..., m], classes.
    temperature: T.
  """
  rows, columns = tf.reshape(logits, [-1, logits.shape[-1]]), tf.reshape(left_out, [-1, left_out.shape[-1]])
  numbers = tf.broadcast_to(tf.range(tf.shape(rows)[0])[:, None], tf.shape(columns))
  others = tf.tensor_scatter_nd_update(
    rows, tf.stack([numbers, columns], axis=-1), tf.fill(tf.shape(columns), tf.constant(_NONE))
  )
  sums = temperature * tf.reduce_logsumexp(others / temperature, axis=-1)
  return tf.reshape(sums, tf.shape(logits)[:-1])
