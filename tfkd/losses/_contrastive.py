"""Contrastive representation distillation (Tian, Krishnan, Isola 2020)."""

import tensorflow as tf

from tfkd.ops.checks import Scalar, check_rank, check_same_shape
from tfkd.ops.norms import as_float32, rescaled, unit

_EPSILON = 1e-7


def contrastive(
  teacher_embedding: tf.Tensor,
  student_embedding: tf.Tensor,
  teacher_negatives: tf.Tensor,
  student_negatives: tf.Tensor,
  temperature: Scalar = 0.07,
  *,
  ratio: float = 0.3,
  normalizer: Scalar = 1.0,
  mask: tf.Tensor | None = None,
) -> tf.Tensor:
  """Computes a noise-contrastive loss between the two embeddings of an example and those of other examples.

    h(x, y) = e / (e + ratio),  e = exp(x . y / temperature) / normalizer,  all embeddings of unit length
    loss = - log h(t, s) - sum_j log(1 - h(t, s_j)) - log h(s, t) - sum_j log(1 - h(s, t_j))

  Teacher and student each serve as the anchor once, as in the authors' code.
  Source: Tian, Krishnan, Isola 2020, arXiv:1910.10699. `ratio` is the paper's N / M, the number of negatives
  over the number of examples in the data set. The paper has `normalizer` 1; the authors' code divides by an estimate of
  the mean of exp(x . y / temperature) times M.

  Args:
    teacher_embedding: float [batch, d].
    student_embedding: float [batch, d].
    teacher_negatives: float [negatives, d], teacher embeddings of other examples.
    student_negatives: float [negatives, d], student embeddings of other examples.
    temperature: positive number, dimensionless.
    ratio: positive number, N / M.
    normalizer: positive number or scalar.
    mask: float [batch, negatives], 1 for the negatives of each example, 0 for entries to ignore; None uses all.

  Returns:
    float32 [batch], in nats, >= 0.

  Raises:
    ValueError: the shapes do not match, or temperature or ratio is not positive.
  """
  if not temperature > 0 or not ratio > 0:
    raise ValueError(f"temperature and ratio must be positive; got {temperature} and {ratio}.")
  tensors = [as_float32(x) for x in (teacher_embedding, student_embedding, teacher_negatives, student_negatives)]
  for tensor, name in zip(tensors, ("teacher", "student", "teacher's negative", "student's negative"), strict=True):
    check_rank(tensor, 2, f"{name} embedding")
  check_same_shape(tensors[0], tensors[1], "teacher embedding", "student embedding")
  check_same_shape(tensors[2], tensors[3], "teacher's negatives", "student's negatives")
  teacher, student, teacher_negatives, student_negatives = (unit(rescaled(x, 1), 1) for x in tensors)
  # log e - log ratio: h is its sigmoid, whose logarithms are stable where e overflows.
  offset = tf.math.log(as_float32(normalizer)) + tf.math.log(as_float32(ratio))

  def scores(similarity):
    return similarity / temperature - offset

  own = 2.0 * tf.nn.softplus(-scores(tf.reduce_sum(teacher * student, axis=1)))
  other = tf.nn.softplus(scores(tf.matmul(teacher, student_negatives, transpose_b=True)))
  other += tf.nn.softplus(scores(tf.matmul(student, teacher_negatives, transpose_b=True)))
  return own + tf.reduce_sum(other if mask is None else other * mask, axis=1)
