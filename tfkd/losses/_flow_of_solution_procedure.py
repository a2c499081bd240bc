"""Flow of solution procedure: Gram matrices of two layers (Yim et al. 2017)."""

from collections.abc import Sequence

import tensorflow as tf

from tfkd.ops.checks import check_same_positions, check_same_shape
from tfkd.ops.norms import as_float32, positions_in_rows


def flow_of_solution_procedure(
  teacher_features: Sequence[tf.Tensor], student_features: Sequence[tf.Tensor]
) -> tf.Tensor:
  """Computes the mean squared difference between the Gram matrices of two layers' features.

    G_ij = mean_p first_pi second_pj over positions p,   loss = mean_ij (G_ij(teacher) - G_ij(student))^2

  Source: Yim et al. 2017, "A Gift from Knowledge Distillation", CVPR, eq. 1-2. Differs: the mean over the matrix
  in place of its squared norm.

  Args:
    teacher_features: pair of float [batch, ..., channels], sequences or maps, from an earlier and a later layer.
    student_features: pair of float with the same channels; positions agree within a pair.

  Returns:
    float32 [batch], in units of the feature to the fourth power, >= 0; 0 when the matrices agree.

  Raises:
    ValueError: a pair does not hold two features, one has no positions, or positions or channels differ.
  """
  teacher, student = _gram(teacher_features, "teacher"), _gram(student_features, "student")
  check_same_shape(teacher, student, "the teacher's Gram matrix", "the student's")
  return tf.reduce_mean(tf.math.squared_difference(teacher, student), axis=[1, 2])


def _gram(features, owner):
  if len(features) != 2:
    raise ValueError(f"{owner} features must be a pair of an earlier and a later feature; got {len(features)}.")
  first, second = (as_float32(feature) for feature in features)
  check_same_positions(first, second)
  first, second = positions_in_rows(first), positions_in_rows(second)
  # Dividing before the sum avoids overflow for large features.
  return tf.matmul(first / tf.cast(tf.shape(first)[1], tf.float32), second, transpose_a=True)
