"""Element-wise distances between features: FitNets' hint loss and variants."""

import tensorflow as tf

from tfkd.ops.checks import check_same_shape
from tfkd.ops.norms import as_float32, flat, square_root, unit


def hint(teacher_feature: tf.Tensor, student_feature: tf.Tensor) -> tf.Tensor:
  """Computes the mean squared error between the teacher's hint layer and the student's guided layer.

    loss = mean (teacher - student)^2

  Source: Romero et al. 2015, arXiv:1412.6550, eq. 3. Differs: mean over elements instead of half their sum. The
  student feature is the output of FitNets' regressor, here a connector.

  Args:
    teacher_feature: float [batch, ...].
    student_feature: float, the same shape.

  Returns:
    float32 [batch], in squared units of the feature, >= 0; 0 when the features agree.

  Raises:
    ValueError: the shapes differ.
  """
  teacher, student = _pair(teacher_feature, student_feature)
  return tf.reduce_mean(flat(tf.math.squared_difference(teacher, student)), axis=1)


def euclidean(teacher_feature: tf.Tensor, student_feature: tf.Tensor) -> tf.Tensor:
  """Computes the Euclidean distance between the features of each example.

  Args:
    teacher_feature: float [batch, ...].
    student_feature: float, the same shape.

  Returns:
    float32 [batch], in units of the feature, >= 0; 0 when the features agree, with gradient 0 there.

  Raises:
    ValueError: the shapes differ.
  """
  teacher, student = _pair(teacher_feature, student_feature)
  return square_root(tf.reduce_sum(flat(tf.math.squared_difference(teacher, student)), axis=1))


def normalized_feature_matching(
  teacher_feature: tf.Tensor, student_feature: tf.Tensor, *, epsilon: float = 1e-8
) -> tf.Tensor:
  """Computes the mean squared error between features with channel vectors of unit length at each position.

    n(f) = f / max(||f||_2 over channels, epsilon),   loss = mean (n(teacher) - n(student))^2

  Args:
    teacher_feature: float [batch, ..., channels].
    student_feature: float, the same shape.
    epsilon: positive lower bound of the divisor, in units of the feature.

  Returns:
    float32 [batch], dimensionless, in [0, 4 / channels]; 0 when all channel vectors have the same direction.

  Raises:
    ValueError: the shapes differ.
  """
  teacher, student = _pair(teacher_feature, student_feature)
  difference = tf.math.squared_difference(unit(teacher, -1, epsilon), unit(student, -1, epsilon))
  return tf.reduce_mean(flat(difference), axis=1)


def _pair(teacher_feature, student_feature):
  teacher, student = as_float32(teacher_feature), as_float32(student_feature)
  check_same_shape(teacher, student, "teacher feature", "student feature")
  return teacher, student
