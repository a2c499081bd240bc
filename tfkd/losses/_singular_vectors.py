"""Knowledge distillation with singular value decomposition (Lee, Kim, Song 2018)."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfkd.ops.checks import check_has_positions, check_same_batch
from tfkd.ops.norms import as_float32, positions_in_rows, rescaled, unit

_NONE = 1e-5  # Eigenvalues, or gaps between them, below this share of the largest are numerically zero in float32.
_MORE = 3  # Number of candidates among the student vectors beyond `rank`.


def singular_vectors(
  teacher_features: Sequence[tf.Tensor], student_features: Sequence[tf.Tensor], *, rank: int = 1
) -> tf.Tensor:
  """Computes the squared difference between radial basis functions of two layers' right singular vectors.

    F = U diag(s) V^T of each feature, F = [positions, channels], the first `rank` columns of V kept
    v_k = s_k(teacher) / ||s(teacher)||_2 V_k, the student's V_k being the one nearest to the teacher's, with its sign
    loss = sum_ijk (r_ijk(teacher) - r_ijk(student))^2,  r_ijk = exp(-(first_ik - second_jk)^2 / 8)

  Source: Lee, Kim, Song 2018, "Self-supervised knowledge distillation using singular value decomposition", ECCV; as
  in RepDistiller's KDSVD, each teacher vector is matched with one of the first `rank + 3` student vectors. Differs: the
  ambiguity of the decomposition is removed. The signs of the teacher vectors, on which the loss depends, make their
  sums positive, and student vectors with singular value zero are not candidates.

  Args:
    teacher_features: pair of float [batch, ..., channels], sequences or maps, from an earlier and a later layer.
    student_features: pair of float, each with the channels of its teacher feature; positions may differ.
    rank: int >= 1, number of singular vectors per feature; at most its number of positions and of channels.

  Returns:
    float32 [batch], dimensionless, >= 0; 0 when the vectors agree, independently of scale and positions of the
    features. The gradient is 0 between vectors with equal singular values, whose directions are not defined.

  Raises:
    ValueError: a pair does not hold two features, one has no positions, their channels differ, or rank is out of range.
  """
  for features, owner in ((teacher_features, "teacher"), (student_features, "student")):
    if len(features) != 2:
      raise ValueError(f"{owner} features must be a pair of an earlier and a later feature; got {len(features)}.")
  pairs = [_aligned(t, s, rank) for t, s in zip(teacher_features, student_features, strict=True)]
  teacher, student = (_radial(*vectors) for vectors in zip(*pairs, strict=True))
  return tf.reduce_sum(tf.math.squared_difference(tf.stop_gradient(teacher), student), axis=[1, 2, 3])


def _aligned(teacher, student, rank):
  """Both features' weighted vectors, float32 [batch, channels, rank], the student's chosen and signed to match."""
  teacher, student = as_float32(teacher), as_float32(student)
  check_has_positions(teacher, "teacher feature")
  check_has_positions(student, "student feature")
  check_same_batch(teacher, student)
  if teacher.shape[-1] != student.shape[-1]:
    raise ValueError(
      f"teacher and student feature must have the same channels; got {teacher.shape} and {student.shape}: "
      "use a connector."
    )
  values_of_teacher, of_teacher = _decomposed(teacher, rank)
  of_teacher *= tf.where(tf.reduce_sum(of_teacher, 1, keepdims=True) < 0, -1.0, 1.0)
  values, of_student = _decomposed(student, rank, more=_MORE)
  exists = values > _NONE * values[:, :1]
  cosines = tf.stop_gradient(tf.matmul(of_student, of_teacher, transpose_a=True))
  cosines = tf.where(exists[:, :, None], cosines, 0.0)
  nearest = tf.one_hot(tf.argmax(tf.abs(cosines), axis=1), of_student.shape[2], axis=1)
  matched = tf.matmul(of_student, nearest * tf.sign(cosines))
  weights = unit(tf.sqrt(values_of_teacher), 1)[:, None, :]
  return of_teacher * weights, matched * weights


def _decomposed(feature, rank, more=0):
  """Squares of the largest singular values, float32 [batch, rank + more], and their right vectors."""
  positions, channels = feature.shape[1:-1].num_elements(), feature.shape[-1]
  most = channels if positions is None else min(positions, channels)
  if not 1 <= rank <= most:
    raise ValueError(
      f"rank must be between 1 and {most}, positions or channels of feature {feature.shape}; got {rank}."
    )
  rows = rescaled(positions_in_rows(feature), [1, 2])
  if positions is not None and positions < channels:  # Decomposes the smaller Gram matrix.
    values, left = _eigen(tf.matmul(rows, rows, transpose_b=True), min(rank + more, most))
    vectors = unit(tf.matmul(rows, left, transpose_a=True), 1)
  else:
    values, vectors = _eigen(tf.matmul(rows, rows, transpose_a=True), min(rank + more, most))
  return tf.stop_gradient(tf.maximum(values, 0.0)), vectors


def _eigen(matrix, count):
  """Largest eigenvalues and eigenvectors of symmetric matrices, largest first: [batch, count] and [batch, n, count]."""

  @tf.custom_gradient
  def vectors_of(matrix):
    values, vectors = tf.linalg.eigh(matrix)

    def gradient(of_values, of_vectors):
      del of_values  # Only the vectors are differentiated.
      gaps = values[:, None, :] - values[:, :, None]
      near = tf.abs(gaps) <= _NONE * values[:, None, -1:]
      inverse = tf.where(near, 0.0, 1.0 / tf.where(near, 1.0, gaps))
      inner = inverse * tf.matmul(vectors, of_vectors, transpose_a=True)
      full = tf.matmul(vectors, tf.matmul(inner, vectors, transpose_b=True))
      return (full + tf.linalg.matrix_transpose(full)) / 2.0

    return (values, vectors), gradient

  decompose: Any = vectors_of
  values, vectors = decompose(matrix)
  return values[:, ::-1][:, :count], vectors[:, :, ::-1][:, :, :count]


def _radial(first, second):
  """[batch, channels, channels, rank]."""
  return tf.exp(-tf.math.squared_difference(first[:, :, None, :], second[:, None, :, :]) / 8.0)
