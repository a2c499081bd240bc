"""The teacher's classifier on the student's features (Chen et al. 2022)."""

from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfkd import losses
from tfkd.features import connectors
from tfkd.features.taps import tappable
from tfkd.objectives.tapped import TappedObjective
from tfkd.ops import graph

layers = keras.layers
PROJECTION = "simkd_projection"


@keras.utils.register_keras_serializable(package="tfkd")
class SimKD(TappedObjective):
  """The student's projected last map reproduces the teacher's, so the teacher's classifier can follow it (SimKD).

  Use it with `hard_loss_weight=0` and a student from `simkd_student`, which ends in a projector and the teacher's
  classifier, both of which are exported with it. There is nothing to tune.
  Source: Chen et al. 2022, arXiv:2203.14001; mean squared error, see `tfkd.losses.hint`.

  Args:
    teacher_layer: name of the teacher's last map.
    student_layer: name of the student's projected map.
    alignment: see `TappedObjective`.
    **options: weight, output and name, see `Objective`.
  Inputs: pair of lists of float [batch, ..., channels], sequences or maps. Output: float32 [batch].
  Example: tfkd.objectives.SimKD("relu6")
  """

  positions = "mean"

  def __init__(
    self,
    teacher_layer: str,
    student_layer: str = PROJECTION,
    *,
    alignment: str | None = "average_pool",
    **options: Any,
  ):
    super().__init__(teacher_layer, student_layer, connector=None, alignment=alignment, **options)

  def distance(self, teacher: tf.Tensor, student: tf.Tensor) -> tf.Tensor:
    return losses.hint(teacher, student)


def simkd_student(
  teacher: keras.Model, student: keras.Model, teacher_layer: str, student_layer: str, factor: int = 2
) -> keras.Model:
  """Puts a projector and the teacher's classifier on a student's feature.

  The projector is that of the paper: convolutions 1x1, 3x3 and 1x1, each with batch normalisation and ReLU, the inner
  two with `channels / factor` channels. The classifier is a frozen copy of the teacher's graph after its layer.

  Args:
    teacher: functional or `Sequential` `tf_keras` model, with one output.
    student: likewise, float; it shares its layers up to `student_layer` with the result.
    teacher_layer: name of the teacher's last map, as `tfkd.taps.tappable` lists it.
    student_layer: name of the student's map that replaces it.
    factor: int >= 1, the ratio of the target's channels to the projector's inner channels.

  Returns:
    A functional `tf_keras` model from the student's inputs to logits, to be quantized and exported like any other.

  Raises:
    ValueError: a layer is missing or gives no map, or the teacher's classifier reads more than that layer.
  """
  for model, layer in ((teacher, teacher_layer), (student, student_layer)):
    if layer not in tappable(model) or "/" in layer:
      raise ValueError(f"{model.name} has no layer '{layer}' of its own; it has {', '.join(tappable(model))}.")
  target, x = teacher.get_layer(teacher_layer).output, student.get_layer(student_layer).output
  if target.shape.rank != 4 or x.shape.rank != 4:
    raise ValueError(f"SimKD joins maps [batch, height, width, channels]; got {target.shape} and {x.shape}.")
  size = tuple(min(a, b) for a, b in zip(target.shape[1:3], x.shape[1:3], strict=True))
  if size != tuple(x.shape[1:3]):
    x = layers.Lambda(connectors.align, arguments={"size": size, "alignment": "average_pool"}, name="simkd_pool")(x)
  narrow = max(1, target.shape[3] // factor)
  for i, (channels, kernel) in enumerate(((narrow, 1), (narrow, 3), (target.shape[3], 1))):
    x = layers.Conv2D(channels, kernel, padding="same", use_bias=False, name=f"simkd_conv{i}")(x)
    x = layers.BatchNormalization(**connectors.PYTORCH_NORMALIZATION, name=f"simkd_bn{i}")(x)
    x = layers.ReLU(name=f"simkd_relu{i}" if i < 2 else PROJECTION)(x)
  return keras.Model(student.inputs, _classifier(teacher, teacher_layer, target, x), name=f"simkd_{student.name}")


def _classifier(teacher: keras.Model, teacher_layer: str, target: Any, projected: Any) -> Any:
  """Applies frozen copies of the teacher's graph after a layer to a student's feature."""
  values = {id(target): projected}
  for node in graph.calls(teacher):
    inputs = [t for t in tf.nest.flatten((node.call_args, node.call_kwargs)) if keras.backend.is_keras_tensor(t)]
    known = [id(t) in values for t in inputs]
    if not any(known):
      continue
    if not all(known):
      raise ValueError(f"{teacher.name}'s '{node.layer.name}' reads more than '{teacher_layer}': tap a later layer.")
    copy = graph.copy_of(node.layer, name=f"teacher_{node.layer.name}")
    args, kwargs = graph.arguments(node, values)
    graph.record(node, copy(*args, **kwargs), values)
    copy.set_weights(node.layer.get_weights())
    copy.trainable = False
  if id(teacher.outputs[0]) not in values or len(teacher.outputs) != 1:
    raise ValueError(f"{teacher.name} must have one output, which depends on '{teacher_layer}'.")
  return values[id(teacher.outputs[0])]
