"""Channel-wise distillation: where in a map or sequence each channel responds (Shu et al. 2021)."""

from typing import Any

import tensorflow as tf

from tfkd.ops.checks import Scalar, check_has_positions, check_rank, check_same_shape, check_temperature
from tfkd.ops.norms import as_float32, positions_in_rows

_NEVER = -1e30  # Finite, so that an example in which no position counts gives no NaN.


def channel_wise_kl(
  teacher_feature: tf.Tensor, student_feature: tf.Tensor, temperature: Scalar = 4.0, weights: Any = None
) -> tf.Tensor:
  """Computes the Kullback-Leibler divergence between channels as distributions over positions.

    p_c = softmax_i(teacher_ic / T),  q_c = softmax_i(student_ic / T),  over positions i
    loss = T^2 mean_c sum_i p_ci (log p_ci - log q_ci)

  Source: Shu et al. 2021, arXiv:2011.13256, eq. 3-5.

  Args:
    teacher_feature: float [batch, ..., channels], a sequence, a map, or with more axes of positions; logits of pixels
      or tokens, too.
    student_feature: float, the same shape.
    temperature: positive number, dimensionless.
    weights: float [batch, ...], one for each position, or for all along axes of length one; or None. Positions of
      weight zero are not part of the distributions; otherwise the weights do not matter.

  Returns:
    float32 [batch], in nats, >= 0; 0 when each channel agrees up to a constant, or no position counts.

  Raises:
    ValueError: temperature is not positive and finite, the shapes differ, or an input has no positions; or weights do
      not have the axes of the positions.

  >>> x = tf.random.normal([2, 4, 4, 3])
  >>> channel_wise_kl(x, x + 5.0).numpy().round(5).tolist()
  [0.0, 0.0]
  """
  check_temperature(temperature)
  teacher, student = as_float32(teacher_feature), as_float32(student_feature)
  check_has_positions(teacher, "teacher feature")
  check_same_shape(teacher, student, "teacher feature", "student feature")
  t, s = (tf.transpose(positions_in_rows(x) / temperature, [0, 2, 1]) for x in (teacher, student))
  if weights is not None:
    weights = as_float32(weights)
    check_rank(weights, teacher.shape.rank - 1, "weights")  # Fewer axes would be broadcast to the wrong ones.
    counts = tf.broadcast_to(weights != 0, tf.shape(teacher)[:-1])
    counts = tf.reshape(counts, [tf.shape(t)[0], 1, tf.shape(t)[2]])
    t, s = (tf.where(counts, x, _NEVER) for x in (t, s))
  log_p, log_q = tf.nn.log_softmax(t), tf.nn.log_softmax(s)
  divergences = tf.reduce_sum(tf.exp(log_p) * (log_p - log_q), axis=2)
  return temperature**2 * tf.reduce_mean(divergences, axis=1)
