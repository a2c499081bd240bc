"""Self-attention: attention matrices (Jiao et al. 2020), and distributions and value relations (Wang et al. 2020)."""

from typing import Any

import tensorflow as tf

from tfkd.ops.checks import check_rank, check_same_shape
from tfkd.ops.norms import as_float32

_NEVER = -1e30  # Finite, so that a row in which no key counts gives no NaN.


def attention_maps(teacher_attention: tf.Tensor, student_attention: tf.Tensor, weights: Any = None) -> tf.Tensor:
  """Computes the mean squared difference between the attention matrices of two self-attention layers.

    loss = mean_h mean_ij (teacher_hij - student_hij)^2

  Source: Jiao et al. 2020, TinyBERT, arXiv:1909.10351, eq. 7, where the matrices are those before softmax.

  Args:
    teacher_attention: float [batch, heads, tokens, tokens], queries before keys, before or after softmax.
    student_attention: float, the same shape; as in the paper heads are compared one by one.
    weights: float [batch, tokens], or None. Tokens of weight zero are no keys, and the mean over queries is that of the
      other values times their weights.

  Returns:
    float32 [batch], in squared units of the matrices, >= 0; 0 when they agree.

  Raises:
    ValueError: the shapes differ, or are not those of square matrices of each head.
  """
  teacher, student = _attention(teacher_attention, student_attention)
  squares = tf.reduce_mean(tf.math.squared_difference(teacher, student), axis=1)
  if weights is None:
    return tf.reduce_mean(squares, axis=[1, 2])
  counts = _counts(weights)[:, None, :]
  of_queries = tf.reduce_sum(tf.where(counts > 0, squares, 0.0), axis=2)
  of_queries = tf.math.divide_no_nan(of_queries, tf.reduce_sum(counts, axis=2))
  return _mean_over_queries(of_queries, weights)


def attention_divergence(teacher_scores: tf.Tensor, student_scores: tf.Tensor, weights: Any = None) -> tf.Tensor:
  """Computes the Kullback-Leibler divergence between the attention distributions of two self-attention layers.

    loss = mean_h mean_i sum_j p_hij (log p_hij - log q_hij),  p, q = softmax of scores over keys j

  Source: Wang et al. 2020, MiniLM, arXiv:2002.10957, eq. 7.

  Args:
    teacher_scores: float [batch, heads, tokens, tokens], queries before keys, before softmax; or the logarithms of
      attention probabilities.
    student_scores: float, the same shape.
    weights: float [batch, tokens], or None. Tokens of weight zero are no keys, and the mean over queries is that of the
      other values times their weights.

  Returns:
    float32 [batch], in nats, >= 0; 0 when the distributions agree.

  Raises:
    ValueError: the shapes differ, or are not those of square matrices of each head.
  """
  teacher, student = _attention(teacher_scores, student_scores)
  return _divergence(teacher, student, weights)


def value_relations(teacher_values: tf.Tensor, student_values: tf.Tensor, heads: int, weights: Any = None) -> tf.Tensor:
  """Computes the Kullback-Leibler divergence between relations of tokens' values.

    R = softmax(V V^T / sqrt(d)) for each head,  V = [tokens, d],  d = channels / heads
    loss = mean_h mean_i sum_j R_hij(teacher) (log R_hij(teacher) - log R_hij(student))

  Source: Wang et al. 2020, MiniLM, arXiv:2002.10957, eq. 8-10.

  Args:
    teacher_values: float [batch, tokens, channels_t], projected values, the heads' channels one after the other.
    student_values: float [batch, tokens, channels_s]; channels may differ.
    heads: int >= 1 that divides the channels of both, the number of relations of a layer.
    weights: float [batch, tokens], or None. Tokens of weight zero are no keys, and the mean over queries is that of the
      other values times their weights.

  Returns:
    float32 [batch], in nats, >= 0; 0 when the relations agree.

  Raises:
    ValueError: an input is no sequence, batch or tokens differ, or heads does not divide the channels.
  """
  teacher, student = as_float32(teacher_values), as_float32(student_values)
  check_rank(teacher, 3, "teacher values")
  check_rank(student, 3, "student values")
  check_same_shape(teacher[:, :, 0], student[:, :, 0], "the tokens of teacher values", "student values")
  return _divergence(_relations(teacher, heads), _relations(student, heads), weights)


def _attention(teacher, student):
  teacher, student = as_float32(teacher), as_float32(student)
  check_rank(teacher, 4, "teacher attention")
  check_same_shape(teacher, student, "teacher attention", "student attention")
  if not teacher.shape[2:3].is_compatible_with(teacher.shape[3:]):
    raise ValueError(f"attention must be [batch, heads, tokens, tokens]; got {teacher.shape}.")
  return teacher, student


def _relations(values, heads):
  """Scaled products between the values of tokens: [batch, heads, tokens, tokens]."""
  channels: Any = values.shape[2]
  if heads < 1 or channels % heads:
    raise ValueError(f"heads must divide the channels of values; got heads={heads} and shape {values.shape}.")
  shape = tf.shape(values)
  split = tf.reshape(values, [shape[0], shape[1], heads, channels // heads])
  split = tf.transpose(split, [0, 2, 1, 3]) / (channels // heads) ** 0.25  # Squares overflow later.
  return tf.matmul(split, split, transpose_b=True)


def _divergence(teacher, student, weights):
  if weights is not None:
    keys = _counts(weights)[:, None, None, :] > 0
    teacher, student = (tf.where(keys, scores, _NEVER) for scores in (teacher, student))
  log_p, log_q = tf.nn.log_softmax(teacher), tf.nn.log_softmax(student)
  of_queries = tf.reduce_mean(tf.reduce_sum(tf.exp(log_p) * (log_p - log_q), axis=3), axis=1)
  return tf.reduce_mean(of_queries, axis=1) if weights is None else _mean_over_queries(of_queries, weights)


def _counts(weights):
  return tf.cast(as_float32(weights) != 0, tf.float32)


def _mean_over_queries(values, weights):
  """Mean of values [batch, tokens] times weights, without the values of tokens of weight zero."""
  weights = as_float32(weights)
  return tf.reduce_mean(tf.where(weights != 0, values, 0.0) * weights, axis=1)
