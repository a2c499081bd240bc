"""Base of the objectives on features: taps, connectors, alignment of shapes, and the errors that name them."""

import functools

import tensorflow as tf
import tf_keras as keras

from tfkd.features import connectors
from tfkd.features.taps import is_keras3
from tfkd.objectives.base import Objective
from tfkd.ops.element_weights import at_positions, masked_mean, without_dropped


class TappedObjective(Objective):
  """An objective on outputs of named layers, one pair of layers or several, whose losses are added.

  A subclass implements `distance(teacher, student)`, the loss of one pair. Each pair has a connector of its own,
  applied to the student's feature before sizes are aligned; connectors are trained with the student, kept in
  checkpoints, and no part of `distiller.student`.

  Positions of weight zero (`sample_weight` [batch, time] or [batch, height, width], or a Keras mask) contribute
  nothing: both features are zero there, and embeddings are means without them. A loss that is a mean or sum over
  positions is taken per position and weighted there; any other is multiplied by the mean of the example's weights.

  Args:
    teacher_layer: name of the teacher's layer, or a list of them; `tfkd.taps.tappable(model)` lists names.
    student_layer: name of the student's layer, or a list of as many; a quantized student's have the float names.
    weight: see `Objective`.
    connector: None, "conv1x1" or "conv1x1_bn" for maps, "linear" for vectors, or a Keras layer that maps the student's
      feature to the teacher's channels.
    alignment: None where heights and widths agree, "average_pool" to bring both to the smaller, or "interpolate" to
      bring the student's to the teacher's.
    name, output: see `Objective`; where there are several outputs, `output` says whose labels and sample weights count.

  Raises:
    ValueError: the lists differ in length, an option is unknown, or, as soon as they are known, shapes do not fit.
  """

  # What the loss needs to agree: "shape", "positions" (height and width), "channels", or only the "batch".
  must_agree = "shape"
  # Whether maps are averaged over their positions first: the loss is on vectors.
  embeds = False
  # How the losses of an example's positions make up its loss, where each position is compared by itself: "mean" or
  # "sum". None where a loss compares or pools positions.
  positions = None
  # Arguments of this class that a subclass decides on, and does not take.
  fixed_arguments = ()

  def __init__(self, teacher_layer, student_layer, weight=1.0, connector=None, alignment=None, name=None, **kwargs):
    super().__init__(weight=weight, name=name, **kwargs)
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
    connectors.connector(connector, 1)  # An unknown name is refused now, not at the first batch.
    # Inside a partial Keras does not take a layer, which serves as a pattern only, for a part of this one.
    self._make_connector = functools.partial(connectors.connector, connector)
    self.alignment = alignment

  def distance(self, teacher, student):
    """The loss of one pair: float32 [batch], or a scalar where examples are compared."""
    raise NotImplementedError(f"{type(self).__name__} must implement distance(teacher, student).")

  def build(self, input_shape):
    self.connectors, self._sizes = [], []
    pairs = zip(self.teacher_layers, self.student_layers, *input_shape[:2], strict=True)
    for teacher_layer, student_layer, teacher, student in pairs:
      try:
        self.build_pair(teacher, student)
      except ValueError as error:
        raise ValueError(
          f"objective '{self.name}' on teacher layer '{teacher_layer}' {tuple(teacher)} and student layer "
          f"'{student_layer}' {tuple(student)}: {error}"
        ) from error
    super().build(input_shape)

  def build_pair(self, teacher, student):
    """Makes what one pair of `tf.TensorShape` needs, if they fit; a subclass with weights of its own extends it."""
    if self.embeds:
      teacher, student = _embedding_shape(teacher), _embedding_shape(student)
    connector = self._make_connector(teacher[-1], student.rank)
    if connector is not None:
      connector.build(student)
      student = tf.TensorShape(connector.compute_output_shape(student))
    if self.must_agree != "batch" and teacher.rank != student.rank:
      raise ValueError(
        f"features of {teacher.rank} and {student.rank} axes can't be compared: tap two maps or two vectors."
      )
    if self.must_agree in ("positions", "channels") and teacher.rank != 4:
      raise ValueError(f"it reads maps [batch, height, width, channels]; got {teacher.rank} axes.")
    size = None
    if teacher.rank == student.rank == 4 and (self.alignment or self.must_agree in ("shape", "positions")):
      size = connectors.aligned_size(teacher, student, self.alignment)
      teacher, student = ([s[0], *size, s[3]] for s in (teacher, student))
    if self.must_agree in ("shape", "channels") and teacher[-1] != student[-1]:
      raise ValueError(
        f"they have {teacher[-1]} and {student[-1]} channels, after any connector: set "
        f'connector="{"conv1x1" if len(teacher) == 4 else "linear"}".'
      )
    if self.must_agree == "shape" and not tf.TensorShape(teacher[1:]).is_compatible_with(student[1:]):
      raise ValueError(f"they are compared as {tuple(teacher)} and {tuple(student)}, which differ.")
    self.connectors.append(connector)
    self._sizes.append(size)

  def call(self, inputs, training=None, sample_weight=None):
    # Keras hands `training` on to the connectors, because it is named here.
    pairs = self.aligned(inputs, sample_weight)
    return tf.add_n([self.weighted(self.distance, *pair, sample_weight) for pair in pairs])

  def weighted(self, distance, teacher, student, sample_weight):
    """The loss of one pair, of each position times its weight where `positions` says that it has losses of its own.

    Args:
      distance: function of a teacher's and a student's feature.
      teacher, student: float [batch, ..., channels], as `aligned` gives them.
      sample_weight: float32 [batch, ...], or None.

    Returns:
      float32 [batch]; without `positions` what `distance` gives.
    """
    if sample_weight is None or self.positions is None:
      return distance(teacher, student)
    weights = at_positions(sample_weight, student)
    rows = [tf.reshape(x, [-1, x.shape[-1]]) for x in (teacher, student)]
    values = tf.reshape(distance(*rows), tf.shape(student)[:-1]) * weights
    axes = list(range(1, values.shape.rank))
    return tf.reduce_mean(values, axes) if self.positions == "mean" else tf.reduce_sum(values, axes)

  def aligned(self, inputs, sample_weight=None):
    """The pairs of features, connected and aligned, with zeros at positions of weight zero.

    Args:
      inputs: pair of lists of features, teacher's first; anything after them is left alone.
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
      if sample_weight is not None and not self.embeds:  # A connector's offset is no zero.
        teacher, student = (without_dropped(x, at_positions(sample_weight, x)) for x in (teacher, student))
      features.append((teacher, student))
    return features

  def get_config(self):
    config = super().get_config()
    (connector,) = self._make_connector.args
    if isinstance(connector, keras.layers.Layer):
      connector = keras.saving.serialize_keras_object(connector)
    names = {"teacher_layer": _name_or_list(self.teacher_layers), "student_layer": _name_or_list(self.student_layers)}
    config |= {**names, "connector": connector, "alignment": self.alignment}
    return {key: value for key, value in config.items() if key not in self.fixed_arguments}


class EmbeddingObjective(TappedObjective):
  """An objective on how the examples of a batch relate: maps and sequences are averaged to one vector per example.

  It sees the batch of its own device: with several devices each compares its share of the global batch.

  Args:
    teacher_layer, student_layer, weight, connector, name: see `TappedObjective`; dimensions may differ.
  """

  must_agree = "batch"
  embeds = True
  relational = True
  fixed_arguments = ("alignment",)

  def __init__(self, teacher_layer, student_layer, weight=1.0, connector=None, name=None, **kwargs):
    super().__init__(teacher_layer, student_layer, weight, connector, None, name, **kwargs)


def _names(layers):
  return (layers,) if isinstance(layers, str) else tuple(layers)


def _name_or_list(names):
  return names[0] if len(names) == 1 else list(names)


def _embedding(feature, sample_weight):
  return masked_mean(feature, sample_weight) if feature.shape.rank > 2 else feature


def _embedding_shape(shape):
  return tf.TensorShape([shape[0], shape[-1]]) if shape.rank > 2 else shape
