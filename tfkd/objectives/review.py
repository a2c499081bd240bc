"""Knowledge review: early teacher features teach late student features too (Chen et al. 2021)."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfkd import losses
from tfkd.features import connectors
from tfkd.objectives.tapped import TappedObjective
from tfkd.ops.element_weights import at_positions, without_dropped

layers = keras.layers


@keras.utils.register_keras_serializable(package="tfkd")
class ReviewKD(TappedObjective):
  """From late to early, the student's features are fused by attention and compared with the teacher's (ReviewKD).

  Use it on the ends of all stages, early to late, and the pooled embedding last. The authors let the weight rise from 0
  over 20 epochs.
  Source: Chen et al. 2021, arXiv:2104.09044; see `tfkd.losses.hierarchical_context`. As in the authors' code maps are
  resized by nearest neighbour, to the next student feature's size, and before the last convolution to the teacher's.

  Args:
    teacher_layer, student_layer: lists of layer names, early to late; shapes may differ.
    channels: channels of the fused features; at most the number of channels of the student's last layer.
    **options: weight, output and name, see `Objective`.
  Inputs: pair of lists of float [batch, height, width, channels] or [batch, time, channels], and [batch, channels].
    Output: float32 [batch].
  Example: tfkd.objectives.ReviewKD(["relu2", "relu4", "relu6", "flatten"], ["relu2", "relu4", "relu6", "flatten"])
  """

  default_weight = 1.0  # The authors' code for CIFAR-100.
  must_agree = "batch"

  def __init__(
    self,
    teacher_layer: str | Sequence[str],
    student_layer: str | Sequence[str],
    *,
    channels: int = 512,
    **options: Any,
  ):
    super().__init__(teacher_layer, student_layer, connector=None, alignment=None, **options)
    if channels < 1:
      raise ValueError(f"channels must be positive; got {channels}.")
    self.channels = channels

  def build(self, input_shape: Any) -> None:
    super().build(input_shape)
    ranks = sorted({shape.rank for shape in tf.nest.flatten(input_shape[:2])} - {2})
    if len(ranks) > 1:
      raise ValueError(
        f"objective '{self.name}' resizes its features to each other; got features of {' and '.join(map(str, ranks))} "
        "axes: tap maps and vectors, or sequences and vectors."
      )
    teachers, students = ([_map_shape(s) for s in shapes] for shapes in input_shape[:2])
    channels = min(self.channels, students[-1][3])
    self.entries, self.attentions, self.exits = [], [], []
    for i, (teacher, student) in enumerate(zip(teachers, students, strict=True)):
      fused = [*student[:3], channels]
      self.entries.append(_convolution(channels, 1))
      self.entries[-1].build(student)
      self.exits.append(_convolution(teacher[3], (3, 1) if 3 in ranks else 3))
      self.exits[-1].build(fused)
      if i + 1 < len(teachers):
        self.attentions.append(layers.Conv2D(2, 1, activation="sigmoid", dtype="float32"))
        self.attentions[-1].build([*student[:3], 2 * channels])

  def check_shape(self, shape: tf.TensorShape, owner: str) -> None:
    super().check_shape(shape, owner)
    if shape.rank > 4 or (owner == "teacher" and None in shape[1:]):
      raise ValueError(
        "the loss pools vectors, sequences or maps, of at most 4 axes, the teacher's with known positions: build the "
        "teacher for a fixed length or image size, or tap another layer."
      )

  def call(self, inputs: tuple, training: bool | None = None, sample_weight: tf.Tensor | None = None) -> tf.Tensor:
    teachers, students = ([_as_map(x) for x in features] for features in inputs[:2])
    total, later = [], None
    for i in reversed(range(len(students))):
      feature = self.entries[i](students[i])
      if later is not None:
        later = connectors.nearest(later, tf.shape(feature)[1:3])
        weights = self.attentions[i](tf.concat([feature, later], axis=3))
        feature = feature * weights[..., :1] + later * weights[..., 1:]
      later = feature
      resized = connectors.nearest(feature, tf.shape(teachers[i])[1:3])
      reviewed = self.exits[i](resized)
      if sample_weight is not None:  # The convolution maps zeros to their neighbours' values.
        reviewed = without_dropped(reviewed, at_positions(sample_weight, inputs[0][i]))
      total.append(losses.hierarchical_context(teachers[i], reviewed))
    return tf.add_n(total)


def _convolution(channels: int, size: int | tuple[int, int]) -> keras.Sequential:
  return keras.Sequential(
    [
      layers.Conv2D(channels, size, padding="same", use_bias=False, dtype="float32"),
      layers.BatchNormalization(**connectors.PYTORCH_NORMALIZATION, dtype="float32"),
    ]
  )


def _map_shape(shape: tf.TensorShape) -> list[Any]:
  sizes = list(shape)
  return [*sizes[:-1], *[1] * (4 - len(sizes)), sizes[-1]]


def _as_map(feature: tf.Tensor) -> tf.Tensor:
  """A sequence as a map of width 1, a vector as a map of one position."""
  sizes = feature.shape[1:-1].as_list()
  return feature if len(sizes) == 2 else tf.reshape(feature, [-1, *sizes, *[1] * (2 - len(sizes)), feature.shape[-1]])
