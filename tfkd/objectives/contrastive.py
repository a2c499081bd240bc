"""Contrastive representation distillation: an example's two embeddings against others' (Tian et al. 2020)."""

import tensorflow as tf
import tf_keras as keras

from tfkd import losses
from tfkd.objectives.base import class_indices
from tfkd.objectives.tapped import TappedObjective
from tfkd.ops.element_weights import of_examples


@keras.utils.register_keras_serializable(package="tfkd")
class Contrastive(TappedObjective):
  """An example's student embedding matches its own teacher embedding better than other examples' (CRD).

  Use it on the last embedding, for the strongest of the classical feature methods. Both embeddings are projected, and
  compared with those of the last `queue_size` training examples of other classes. Labels are needed.
  Source: Tian, Krishnan, Isola 2020, arXiv:1910.10699; see `tfkd.losses.contrastive`. Differs: queues of the latest
  embeddings in place of a memory of the whole data set, which would need every example's index; as in the authors' code
  the mean of exp(similarity / temperature) is estimated on the first batch and kept. With several devices the queues
  hold all devices' examples.

  Args:
    teacher_layer, student_layer, weight, name: see `TappedObjective`; one layer each. Maps are averaged.
    dimensions: dimensions of the projected embeddings.
    queue_size: number of negatives of each example.
    temperature: positive number, dimensionless.
  Inputs: (list of the teacher's feature, list of the student's, labels [batch]). Output: float32 [batch], in nats.
  Example: tfkd.objectives.Contrastive("flatten", "flatten")
  """

  must_agree = "batch"
  embeds = True
  reads_labels = True
  fixed_arguments = ("connector", "alignment")

  def __init__(
    self,
    teacher_layer,
    student_layer,
    weight=0.8,
    dimensions=128,
    queue_size=4096,
    temperature=0.07,
    name=None,
    **kwargs,
  ):
    super().__init__(teacher_layer, student_layer, weight, None, None, name, **kwargs)
    if len(self.teacher_layers) != 1:
      raise ValueError(f"objective '{self.name}' takes one layer of each model; got {teacher_layer}.")
    if dimensions < 1 or queue_size < 1 or not temperature > 0:
      raise ValueError(
        f"dimensions, queue_size and temperature must be positive; got {dimensions}, {queue_size} and {temperature}."
      )
    self.dimensions = dimensions
    self.queue_size = queue_size
    self.temperature = temperature
    self.projections = [keras.layers.Dense(dimensions, dtype="float32") for _ in range(2)]

  def build_pair(self, teacher, student):
    super().build_pair(teacher, student)
    for projection, shape in zip(self.projections, (teacher, student), strict=True):
      projection.build([shape[0], shape[-1]])
    self.queues = [self._state(f"queue{i}", (self.queue_size, self.dimensions), 0.0) for i in range(2)]
    # A label that no example has: an empty place.
    self.queue_labels = self._state("queue_labels", (self.queue_size,), -1)
    self.normalizer = self._state("normalizer", (), -1.0)

  def call(self, inputs, training=None, sample_weight=None):
    ((teacher, student),) = self.aligned(inputs, sample_weight)
    labels = class_indices(inputs[2], None)
    # An example of weight zero leaves an empty place in the queues.
    counts = tf.ones_like(labels, tf.bool) if sample_weight is None else of_examples(sample_weight) != 0
    embeddings = [
      tf.math.l2_normalize(projection(x), axis=1)
      for projection, x in zip(self.projections, (teacher, student), strict=True)
    ]
    if training:
      self._normalize_by(*embeddings, counts)
    queued = tf.convert_to_tensor(self.queue_labels)
    is_negative = (queued >= 0) & (queued != labels[:, None])
    loss = losses.contrastive(
      *embeddings,
      *(tf.convert_to_tensor(queue) for queue in self.queues),
      self.temperature,
      ratio=self.queue_size,
      normalizer=tf.where(self.normalizer > 0, self.normalizer, 1.0),
      mask=tf.cast(is_negative, tf.float32),
    )
    if training:
      for state, new in zip(
        (*self.queues, self.queue_labels), (*embeddings, tf.where(counts, labels, -1)), strict=True
      ):
        new = _of_all_replicas(tf.stop_gradient(new))
        state.assign(tf.concat([new, state], axis=0)[: self.queue_size])
    return loss

  def _normalize_by(self, teacher, student, counts):
    """Estimates the normalizer on the first batch that counts; later ones find it set."""
    teacher, student = _of_all_replicas(tf.stop_gradient(teacher)), _of_all_replicas(tf.stop_gradient(student))
    counts = _of_all_replicas(tf.cast(counts, tf.float32))
    values = tf.exp(tf.matmul(teacher, student, transpose_b=True) / self.temperature)
    pairs = counts[:, None] * counts[None, :]
    mean = tf.math.divide_no_nan(tf.reduce_sum(values * pairs), tf.reduce_sum(pairs))
    self.normalizer.assign(tf.where(self.normalizer > 0, self.normalizer, mean))

  def _state(self, name, shape, value):
    return self.add_weight(
      name,
      shape,
      dtype=tf.int32 if isinstance(value, int) else tf.float32,
      initializer=keras.initializers.Constant(value),
      trainable=False,
      # All replicas hold the same queue, made of all replicas' examples.
      aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
    )

  def get_config(self):
    return {
      **super().get_config(),
      "dimensions": self.dimensions,
      "queue_size": self.queue_size,
      "temperature": self.temperature,
    }


def _of_all_replicas(tensor):
  context = tf.distribute.get_replica_context()
  return context.all_gather(tensor, axis=0) if context.num_replicas_in_sync > 1 else tensor
