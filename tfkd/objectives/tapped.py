"""Base classes of the objectives on features: taps, connectors, alignment of shapes, and the errors that name them."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import tensorflow as tf
import tf_keras as keras

from tfkd.features import connectors
from tfkd.keras3 import is_keras3
from tfkd.objectives.base import Objective
from tfkd.objectives.batch import Batch
from tfkd.ops.element_weights import at_positions, masked_mean


class TappedObjective(Objective):
  """An objective on outputs of named layers, of one pair of layers or several pairs, whose losses are added.

  A subclass implements `distance(teacher, student)`, the loss of one pair. Each pair has its own connector, applied to
  the student's feature before sizes are aligned. Connectors are trained with the student and kept in checkpoints, but
  are not part of `distiller.student`. A subclass without connector or alignment passes `connector=None` or
  `alignment=None` to this constructor itself; its users cannot give one then.

  Positions of weight zero (`sample_weight` [batch, time] or [batch, height, width], or a Keras mask) contribute
  nothing: both features are zero there, and embeddings are means without them. A loss that is a mean or sum over
  positions is taken per position and weighted there; any other is multiplied by the mean of the example's weights.

  Args:
    teacher_layer: name of the teacher's layer, or a list of names; `tfkd.taps.tappable(model)` lists them.
    student_layer: name of the student's layer, or a list of the same length; the layers of a quantized student have
      the float model's names.
    connector: None, "project" or "project_bn" (with batch normalisation) for a linear map of the last axis, whatever
      the rank, or a Keras layer that maps the student's feature to the teacher's channels. "conv1x1" and "linear" are
      other names of "project", "conv1x1_bn" of "project_bn".
    alignment: None if lengths of sequences, or heights and widths of maps, agree, "average_pool" to bring both to the
      smaller size, or "interpolate" to bring the student's to the teacher's.
    **options: weight, output and name, see `Objective`; if the models have several outputs, `output` selects the one
      whose labels and sample weights are used.

  Raises:
    ValueError: the lists differ in length, an option is unknown, or, as soon as they are known, shapes do not fit.
  """

  must_agree: ClassVar[str] = "shape"
  """Parts of the shapes that must agree: "shape", "positions" (length, or height and width), "channels" or "batch".

  A class with "positions" or "channels" reads features that have positions: sequences and maps, not vectors."""
  fixed_channels: ClassVar[bool] = True
  """Whether the number of channels must be known, because weights or the loss depend on it."""
  embeds: ClassVar[bool] = False
  """Whether sequences and maps are averaged over their positions first, because the loss is on vectors."""
  positions: ClassVar[str | None] = None
  """How the losses of single positions are combined into the loss of an example: "mean" or "sum".

  None if the loss compares or pools positions."""

  def __init__(
    self,
    teacher_layer: str | Sequence[str],
    student_layer: str | Sequence[str],
    *,
    connector: str | keras.layers.Layer | None = None,
    alignment: str | None = None,
    **options: Any,
  ):
    super().__init__(**options)
    self.teacher_layers, self.student_layers = _names(teacher_layer), _names(student_layer)
    if not 0 < len(self.teacher_layers) == len(self.student_layers):
      raise ValueError(
        f"objective '{self.name}' needs one student layer for each teacher layer; got {teacher_layer} and "
        f"{student_layer}."
      )
    if alignment not in connectors.ALIGNMENTS:
      raise ValueError(f"unknown alignment {alignment!r}: expected one of {connectors.ALIGNMENTS}.")
    if is_keras3(connector):
      raise TypeError("connector is a Keras 3 layer: make it with `import tf_keras as keras`.")
    connectors.connector(connector, 1)  # Refuses an unknown name now rather than at the first batch.
    # Keras does not track a layer inside a partial: it is a template only, and not a part of this objective.
    self._make_connector = functools.partial(connectors.connector, connector)
    self.alignment = alignment

  @property
  def teacher_layer(self) -> str | list[str]:
    """The constructor's argument."""
    return _name_or_list(self.teacher_layers)

  @property
  def student_layer(self) -> str | list[str]:
    """The constructor's argument."""
    return _name_or_list(self.student_layers)

  @property
  def connector(self) -> Any:
    """The constructor's argument; a layer as its configuration."""
    (connector,) = self._make_connector.args
    is_layer = isinstance(connector, keras.layers.Layer)
    return keras.saving.serialize_keras_object(connector) if is_layer else connector

  def distance(self, teacher: tf.Tensor, student: tf.Tensor) -> tf.Tensor:
    """The loss of one pair: float32 [batch], or a scalar if examples are compared."""
    raise NotImplementedError(f"{type(self).__name__} must implement distance(teacher, student).")

  def inputs(self, batch: Batch) -> tuple:
    teacher, student = self.teacher_of(batch).features, batch.student.features
    return [teacher[layer] for layer in self.teacher_layers], [student[layer] for layer in self.student_layers]

  def options(self, batch: Batch) -> dict[str, Any]:
    return {"training": batch.training, "sample_weight": batch.sample_weight}

  def build(self, input_shape: Any) -> None:
    self.connectors, self._sizes = [], []
    pairs = zip(self.teacher_layers, self.student_layers, *input_shape[:2], strict=True)
    for teacher_layer, student_layer, teacher, student in pairs:
      try:
        self.build_pair(teacher, student)
      except ValueError as error:
        raise ValueError(
          f"objective '{self.name}' on teacher layer '{teacher_layer}' {teacher} and student layer "
          f"'{student_layer}' {student}: {error}"
        ) from error
    super().build(input_shape)

  def build_pair(self, teacher: tf.TensorShape, student: tf.TensorShape) -> None:
    """Makes the connector of one pair after checking its shapes; a subclass with weights of its own extends this."""
    for shape, owner in ((teacher, "teacher"), (student, "student")):
      self.check_shape(shape, owner)
    if self.embeds:
      teacher, student = _embedding_shape(teacher), _embedding_shape(student)
    channels: Any = teacher[-1]
    connector = self._make_connector(channels)
    if connector is not None:
      connector.build(student)
      student = tf.TensorShape(connector.compute_output_shape(student))
    if self.must_agree != "batch" and teacher.rank != student.rank:
      raise ValueError(
        f"features of {teacher.rank} and {student.rank} axes cannot be compared: tap two vectors, two sequences or two "
        "maps."
      )
    size = None
    if teacher.rank == student.rank > 2 and (self.alignment or self.must_agree in ("shape", "positions")):
      size = connectors.aligned_size(teacher, student, self.alignment)
      teacher, student = (tf.TensorShape([s[0], *size, s[-1]]) for s in (teacher, student))
    if self.must_agree in ("shape", "channels") and teacher[-1] != student[-1]:
      raise ValueError(
        f'they have {teacher[-1]} and {student[-1]} channels, after any connector: set connector="project".'
      )
    if self.must_agree == "shape" and not tf.TensorShape(teacher[1:]).is_compatible_with(student[1:]):
      raise ValueError(f"they are compared as {teacher} and {tuple(student)}, which differ.")
    self.connectors.append(connector)
    self._sizes.append(size)

  def check_shape(self, shape: tf.TensorShape, owner: str) -> None:
    """Refuses one feature that the loss cannot read, whatever the other's shape.

    Args:
      shape: [batch, ..., channels].
      owner: "teacher" or "student", for the message.

    Raises:
      ValueError: there are no channels, their number is unknown, or the loss reads positions and there are none.
    """
    needs_channels = self.fixed_channels or self.connector is not None
    if shape.rank is None or shape.rank < 2 or (needs_channels and shape[-1] is None):
      raise ValueError(
        f"the {owner}'s feature must have a known number of channels, as [batch, ..., channels]; got {shape}: build "
        f"the {owner} for a fixed last axis, tap another layer, or return tf.ensure_shape(feature, [None, ..., "
        "channels]) from the function that computes it."
      )
    if self.must_agree in ("positions", "channels"):
      check_compares_positions(shape, owner)

  def call(self, inputs: tuple, training: bool | None = None, sample_weight: tf.Tensor | None = None) -> tf.Tensor:
    # Keras passes `training` on to the connectors because it is an argument here.
    pairs = self.aligned(inputs, sample_weight)
    return tf.add_n([self.weighted(self.distance, *pair, sample_weight) for pair in pairs])

  def weighted(
    self, distance: Callable, teacher: tf.Tensor, student: tf.Tensor, sample_weight: tf.Tensor | None
  ) -> tf.Tensor:
    """The loss of one pair, in which each position is weighted if the class has `positions`.

    Args:
      distance: function of a teacher's and a student's feature.
      teacher, student: float [batch, ..., channels], as `aligned` gives them.
      sample_weight: float32 [batch, ...], or None.

    Returns:
      float32 [batch]; without `positions` whatever `distance` returns.
    """
    if sample_weight is None or self.positions is None:
      return distance(teacher, student)
    weights = at_positions(sample_weight, student)
    rows = [tf.reshape(x, [-1, x.shape[-1]]) for x in (teacher, student)]
    values = tf.reshape(distance(*rows), tf.shape(student)[:-1]) * weights
    axes = list(range(1, values.shape.rank))
    return tf.reduce_mean(values, axes) if self.positions == "mean" else tf.reduce_sum(values, axes)

  def aligned(self, inputs: tuple, sample_weight: tf.Tensor | None = None) -> list[tuple[tf.Tensor, tf.Tensor]]:
    """The pairs of features, connected and aligned, with zeros at positions of weight zero.

    Args:
      inputs: lists of features, the teacher's first; further entries are ignored.
      sample_weight: float32 [batch, ...], or None.

    Returns:
      list of (teacher, student).
    """
    features = []
    for teacher, student, connector, size in zip(*inputs[:2], self.connectors, self._sizes, strict=True):
      if self.embeds:
        teacher, student = _embedding(teacher, sample_weight), _embedding(student, sample_weight)
      if connector is not None:
        student = connector(student)
      if size is not None:
        teacher, student = (connectors.align(x, size, self.alignment) for x in (teacher, student))
      if sample_weight is not None and not self.embeds:  # A connector maps zeros to its bias.
        teacher, student = (self.without_dropped(x, sample_weight) for x in (teacher, student))
      features.append((teacher, student))
    return features


class EmbeddingObjective(TappedObjective):
  """An objective on relations between the examples of a batch, each of which is one vector.

  Maps and sequences are averaged over their positions. Each replica compares its own share of the global batch.

  Args:
    teacher_layer, student_layer, connector: see `TappedObjective`; dimensions may differ.
    **options: weight, output and name, see `Objective`.
  """

  must_agree = "batch"
  fixed_channels = False
  embeds = True
  relational = True

  def __init__(
    self,
    teacher_layer: str | Sequence[str],
    student_layer: str | Sequence[str],
    *,
    connector: str | keras.layers.Layer | None = None,
    **options: Any,
  ):
    super().__init__(teacher_layer, student_layer, connector=connector, alignment=None, **options)


def check_compares_positions(shape: tf.TensorShape, owner: str) -> None:
  """Raises ValueError if a feature that is compared over positions is a vector.

  Args:
    shape: [batch, ..., channels].
    owner: "teacher" or "student", for the message.
  """
  if shape.rank is not None and shape.rank < 3:
    raise ValueError(
      "the loss compares positions, of a sequence [batch, time, channels] or a map [batch, height, width, channels], "
      f"and the {owner}'s feature is a vector: tap a layer before the pooling, or use `Hint` or `RKDDistance`."
    )


def _names(layers: str | Sequence[str]) -> tuple[str, ...]:
  return (layers,) if isinstance(layers, str) else tuple(layers)


def _name_or_list(names: tuple[str, ...]) -> str | list[str]:
  return names[0] if len(names) == 1 else list(names)


def _embedding(feature: tf.Tensor, sample_weight: tf.Tensor | None) -> tf.Tensor:
  return masked_mean(feature, sample_weight) if feature.shape.rank > 2 else feature


def _embedding_shape(shape: tf.TensorShape) -> tf.TensorShape:
  return tf.TensorShape([shape[0], shape[-1]]) if shape.rank > 2 else shape
