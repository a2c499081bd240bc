"""Soft targets: the teacher's temperature-softened class distribution (Hinton, Vinyals, Dean 2015)."""

from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfkd import losses
from tfkd.objectives.batch import Batch
from tfkd.objectives.logits import LogitObjective

_FORMS = {
  "kl": losses.soft_target_kl,
  "cross_entropy": losses.soft_target_cross_entropy,
  "reverse_kl": losses.soft_target_reverse_kl,
  "jsd": losses.soft_target_jsd,
}


@keras.utils.register_keras_serializable(package="tfkd")
class SoftTargets(LogitObjective):
  """The student reproduces the teacher's class distribution at a temperature (KD).

  Use it first: it needs only logits. Higher temperatures show more of the teacher's ranking of the wrong classes.
  Source: Hinton, Vinyals, Dean 2015, arXiv:1503.02531, section 2. The gradient of softened logits shrinks as 1/T^2;
  `scale_by_t2` multiplies by T^2, so that `weight` means the same at every temperature.

  Args:
    temperature: positive finite number, dimensionless.
    form: "kl", which is zero when student and teacher agree, so that its value can be compared between temperatures;
      "cross_entropy", which has the same gradient and the teacher's entropy as its minimum; "reverse_kl", which makes
      the student prefer the teacher's most probable classes over covering all of them (Gu et al. 2024,
      arXiv:2306.08543); or "jsd", the generalised Jensen-Shannon divergence (Agarwal et al. 2024, arXiv:2306.13649).
    source: "teacher", or "labels": the one-hot ground truth replaces the teacher's distribution, and only the student
      is softened. Labels are class indices [batch] or [batch, 1], or probabilities [batch, classes].
    scale_by_t2: whether to multiply by temperature squared.
    beta: number between 0 and 1, the teacher's share in the mixture of "jsd"; small values are nearer to "kl", large
      ones to "reverse_kl". The other forms do not read it.
    **options: weight, standardize, output and name, see `LogitObjective`.
  Inputs: pair (teacher logits or labels, student logits [batch, ..., classes]). Output: float32 [batch, ...], in nats.
  Example: tfkd.objectives.SoftTargets(temperature=4.0, weight=0.7)

  Raises:
    ValueError: an argument is out of its range, or teacher and student have different numbers of classes.
  """

  acronyms = ("KD",)

  def __init__(
    self,
    temperature: float | tf.Variable = 4.0,
    *,
    form: str = "kl",
    source: str = "teacher",
    scale_by_t2: bool = True,
    beta: float = 0.5,
    **options: Any,
  ):
    super().__init__(**options)
    self.temperature = temperature
    self.source = source
    self.form = form
    self.scale_by_t2 = scale_by_t2
    self.beta = beta

  def __setattr__(self, name: str, value: Any) -> None:
    if name == "form" and value not in _FORMS:
      raise ValueError(f"form must be one of {', '.join(_FORMS)}; got {value!r}.")
    if name == "source" and value not in ("teacher", "labels"):
      raise ValueError(f'source must be "teacher" or "labels"; got {value!r}.')
    if name == "beta" and not 0 < value < 1:
      raise ValueError(f"beta must be between 0 and 1; got {value!r}.")
    source, form = (value if name == other else vars(self).get(other) for other in ("source", "form"))
    if source == "labels" and form in ("reverse_kl", "jsd"):
      raise ValueError(
        f'form "{form}" needs a teacher: it reads probabilities of all classes, which labels lack; use "kl".'
      )
    super().__setattr__(name, value)

  @property
  def reads_teacher(self) -> bool:
    return self.source == "teacher"

  @property
  def reads_top_k(self) -> bool:
    return not self.standardize

  def inputs(self, batch: Batch) -> tuple:
    source = self.teacher_output(batch) if self.reads_teacher else self.labels(batch)
    return source, self.student_output(batch)

  def call(self, inputs: tuple) -> tf.Tensor:
    source, student = inputs
    if self.source == "labels":
      loss = self._against_labels(source, *self.logits(student))
    else:
      if isinstance(source, losses.TopK):
        (student,) = self.logits(student)
        source, student = losses.with_rest(source, student, self.temperature)
      else:
        source, student = self.logits(source, student)
      options = {"beta": self.beta} if self.form == "jsd" else {}
      loss = _FORMS[self.form](source, student, self.temperature, **options)
    return loss * self.temperature**2 if self.scale_by_t2 else loss

  def _against_labels(self, labels: tf.Tensor, student: tf.Tensor) -> tf.Tensor:
    target = _label_probabilities(labels, student)
    loss = losses.tempered_cross_entropy(target, student, self.temperature)
    if self.form == "kl":
      loss += tf.reduce_sum(tf.math.xlogy(target, target), axis=-1)  # Minus the entropy: zero for one-hot labels.
    return loss


def _label_probabilities(labels: tf.Tensor, student_logits: tf.Tensor) -> tf.Tensor:
  """float32 [batch, classes] from class indices [batch] or [batch, 1], or from probabilities."""
  classes = student_logits.shape[-1]
  if labels.shape.rank == student_logits.shape.rank and labels.shape[-1] == classes:
    return tf.cast(labels, tf.float32)
  if labels.shape.rank == student_logits.shape.rank and labels.shape[-1] == 1:
    labels = tf.squeeze(labels, -1)
  if labels.shape.rank != student_logits.shape.rank - 1:
    raise ValueError(
      f"labels must be class indices [batch] or probabilities [batch, {classes}]; got shape {labels.shape} for "
      f"student logits {student_logits.shape}."
    )
  return tf.one_hot(tf.cast(labels, tf.int32), classes)
