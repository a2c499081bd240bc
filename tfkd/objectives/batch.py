"""The data of one step, as the Distiller hands it to every objective."""

from typing import Any, NamedTuple

import tensorflow as tf

from tfkd.features import ModelOutputs


class Batch(NamedTuple):
  """Outputs of both models, labels and state of one step.

  Attributes:
    teacher: outputs and tapped features of the teacher that the objective reads, or None without a teacher. Before an
      objective is chosen: a dict by name if there are several teachers.
    student: outputs and tapped features of the student, float32, with their Keras masks.
    labels: labels, nested like the student's outputs, or None.
    sample_weight: weight of each element that the objective reads, Keras masks included: float32 [batch, ...], or None
      if all elements count equally. Before an objective is chosen: one weight or None for each output.
    step: int64 scalar, the optimizer's step.
    training: whether the step trains; a Python bool, so it is known when the step is traced.
  """

  teacher: Any
  student: ModelOutputs
  labels: Any = None
  sample_weight: Any = None
  step: tf.Tensor | int = 0
  training: bool = False
