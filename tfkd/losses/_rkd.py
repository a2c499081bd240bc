"""Relational knowledge distillation: distances and angles between the embeddings of a batch (Park et al. 2019)."""

import tensorflow as tf

from tfkd.ops.checks import check_rank, check_same_batch
from tfkd.ops.norms import as_float32, pairwise_distances, unit


def rkd_distance(teacher_embedding: tf.Tensor, student_embedding: tf.Tensor) -> tf.Tensor:
  """Computes the Huber loss between pairwise distances, each divided by the mean distance of its network.

    psi_ij = ||x_i - x_j||_2 / mean of the positive ||x_k - x_l||_2,   loss = mean_ij huber_1(psi_ij(t) - psi_ij(s))

  Source: Park et al. 2019, arXiv:1904.05068, eq. 5-8. Differs: the mean is over all pairs, including the zero
  diagonal, as in the authors' code.

  Args:
    teacher_embedding: float [batch, d_t].
    student_embedding: float [batch, d_s]; dimensions may differ.

  Returns:
    float32 scalar, dimensionless, >= 0; 0 when the distances agree up to a common scale, and for a batch of one.

  Raises:
    ValueError: an input is not rank 2, or the batches differ.
  """
  teacher, student = _embeddings(teacher_embedding, student_embedding)
  return _mean_huber(_relative_distances(teacher), _relative_distances(student))


def rkd_angle(teacher_embedding: tf.Tensor, student_embedding: tf.Tensor) -> tf.Tensor:
  """Computes the Huber loss between the cosines of the angles of all triplets of the batch.

    psi_ijk = cos angle(x_i, x_j, x_k), the angle at x_j,   loss = mean_ijk huber_1(psi_ijk(t) - psi_ijk(s))

  Source: Park et al. 2019, arXiv:1904.05068, eq. 9-11. Differs: the mean is over all batch^3 triplets, where
  degenerate ones count as 0, as in the authors' code. Memory grows with batch^3.

  Args, Returns and Raises are those of `rkd_distance`; the value lies in [0, 3/2].
  """
  teacher, student = _embeddings(teacher_embedding, student_embedding)
  return _mean_huber(_angles(teacher), _angles(student))


def distance_metric(teacher_embedding: tf.Tensor, student_embedding: tf.Tensor) -> tf.Tensor:
  """Computes the mean squared difference between pairwise Euclidean distances, not normalized.

    loss = mean_ij (||t_i - t_j||_2 - ||s_i - s_j||_2)^2

  Args:
    teacher_embedding: float [batch, d_t].
    student_embedding: float [batch, d_s]; dimensions may differ.

  Returns:
    float32 scalar, in squared units of the embedding, >= 0; 0 when all distances agree.

  Raises:
    ValueError: an input is not rank 2, or the batches differ.
  """
  teacher, student = _embeddings(teacher_embedding, student_embedding)
  return tf.reduce_mean(tf.math.squared_difference(pairwise_distances(teacher), pairwise_distances(student)))


def _embeddings(teacher, student):
  teacher, student = as_float32(teacher), as_float32(student)
  check_rank(teacher, 2, "teacher embedding")
  check_rank(student, 2, "student embedding")
  check_same_batch(teacher, student)
  return teacher, student


def _relative_distances(embedding):
  distances = pairwise_distances(embedding)
  positive = tf.cast(distances > 0, tf.float32)
  mean = tf.math.divide_no_nan(tf.reduce_sum(distances), tf.reduce_sum(positive))
  return tf.math.divide_no_nan(distances, mean)


def _angles(embedding):
  # directions[j, i] points from x_j to x_i; two of them at one j make an angle.
  directions = unit(embedding[None, :, :] - embedding[:, None, :], 2)
  return tf.matmul(directions, directions, transpose_b=True)


def _mean_huber(teacher, student):
  error = tf.abs(teacher - student)
  return tf.reduce_mean(tf.where(error < 1.0, 0.5 * error**2, error - 0.5))
