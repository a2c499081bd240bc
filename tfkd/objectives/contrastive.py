"""Contrastive representation distillation: an example's two embeddings against others' (Tian et al. 2020)."""

from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfkd import losses
from tfkd.objectives.base import class_indices
from tfkd.objectives.batch import Batch
from tfkd.objectives.tapped import TappedObjective
from tfkd.ops.element_weights import of_examples


@keras.utils.register_keras_serializable(package="tfkd")
class Contrastive(TappedObjective):
  """An example's student embedding matches its own teacher embedding better than other examples' (CRD).

  Use it on the last embedding, as the strongest of the classical feature methods. Both embeddings are projected, and
  compared with those of the last `queue_size` training examples of other classes. Labels are needed.
  Source: Tian, Krishnan, Isola 2020, arXiv:1910.10699; see `tfkd.losses.contrastive`. Differs: queues of the latest
  embeddings in place of a memory of the whole data set, which would need every example's index; as in the authors' code
  the mean of exp(similarity / temperature) is estimated on the first batch and kept. With several devices the queues
  hold the examples of all devices.

  Args:
    teacher_layer, student_layer: name of one layer each. Sequences and maps are averaged.
    dimensions: dimensions of the projected embeddings.
    queue_size: number of negatives of each example.
    temperature: positive number, dimensionless.
    **options: weight, output and name, see `Objective`.
  Inputs: (list of the teacher's feature, list of the student's, labels [batch]). Output: float32 [batch], in nats.
  Example: tfkd.objectives.Contrastive("flatten", "flatten")
  """

  acronyms = ("CRD",)
  default_weight = 0.8
  must_agree = "batch"
  embeds = True

  def __init__(
    self,
    teacher_layer: str,
    student_layer: str,
    *,
    dimensions: int = 128,
    queue_size: int = 4096,
    temperature: float = 0.07,
    **options: Any,
  ):
    super().__init__(teacher_layer, student_layer, connector=None, alignment=None, **options)
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

  def inputs(self, batch: Batch) -> tuple:
    return *super().inputs(batch), self.labels(batch)

  def build_pair(self, teacher: tf.TensorShape, student: tf.TensorShape) -> None:
    super().build_pair(teacher, student)
    for projection, shape in zip(self.projections, (teacher, student), strict=True):
      projection.build([shape[0], shape[-1]])
    self.queues = [self._state(f"queue{i}", (self.queue_size, self.dimensions), 0.0) for i in range(2)]
    # -1 marks an empty entry; no example has this label.
    self.queue_labels = self._state("queue_labels", (self.queue_size,), -1)
    self.normalizer = self._state("normalizer", (), -1.0)

  def call(self, inputs: tuple, training: bool | None = None, sample_weight: tf.Tensor | None = None) -> tf.Tensor:
    ((teacher, student),) = self.aligned(inputs, sample_weight)
    labels = class_indices(inputs[2], None, tf.TensorShape([None]))
    # An example of weight zero leaves an empty entry in the queues.
    counts = tf.ones_like(labels, tf.bool) if sample_weight is None else of_examples(sample_weight) != 0
    embeddings = [
      tf.math.l2_normalize(projection(x), axis=1)
      for projection, x in zip(self.projections, (teacher, student), strict=True)
    ]
    if training:
      self._normalize_by(*embeddings, counts=counts)
    queued = tf.convert_to_tensor(self.queue_labels)
    is_negative = (queued >= 0) & (queued != labels[:, None])
    loss = losses.contrastive(
      *embeddings,
      *(tf.convert_to_tensor(queue) for queue in self.queues),
      temperature=self.temperature,
      ratio=self.queue_size,
      normalizer=tf.where(self.normalizer > 0, self.normalizer, 1.0),
      mask=tf.cast(is_negative, tf.float32),
    )
    if training:
      for state, new in zip(
        (*self.queues, self.queue_labels), (*embeddings, tf.where(counts, labels, -1)), strict=True
      ):
        new = _gathered(tf.stop_gradient(new))
        state.assign(tf.concat([new, state], axis=0)[: self.queue_size])
    return loss

  def _normalize_by(self, teacher: tf.Tensor, student: tf.Tensor, counts: tf.Tensor) -> None:
    """Estimates the normalizer on the first batch that counts; later batches leave it unchanged."""
    teacher, student = _gathered(tf.stop_gradient(teacher)), _gathered(tf.stop_gradient(student))
    counts = _gathered(tf.cast(counts, tf.float32))
    values = tf.exp(tf.matmul(teacher, student, transpose_b=True) / self.temperature)
    pairs = counts[:, None] * counts[None, :]
    mean = tf.math.divide_no_nan(tf.reduce_sum(values * pairs), tf.reduce_sum(pairs))
    self.normalizer.assign(tf.where(self.normalizer > 0, self.normalizer, mean))

  def _state(self, name: str, shape: tuple[int, ...], value: float) -> tf.Variable:
    return self.add_weight(
      name,
      shape,
      dtype=tf.int32 if isinstance(value, int) else tf.float32,
      initializer=keras.initializers.Constant(value),
      trainable=False,
      # All replicas hold the same queue, made of the examples of all replicas.
      aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
    )


def _gathered(tensor: tf.Tensor) -> tf.Tensor:
  """The tensors of all replicas, concatenated."""
  context = tf.distribute.get_replica_context()
  return context.all_gather(tensor, axis=0) if context.num_replicas_in_sync > 1 else tensor
