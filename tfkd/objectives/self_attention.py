"""Self-attention of transformers: attention maps, attention distributions and relations of values."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfkd import losses
from tfkd.objectives.tapped import TappedObjective
from tfkd.ops.element_weights import at_positions

_TINY = 1e-30  # Smaller attention probabilities are those of masked keys.


class _Attention(TappedObjective):
  """An objective on attention [batch, heads, tokens, tokens], whose weights are those of tokens."""

  must_agree = "batch"
  positions = "mean"

  def __init__(self, teacher_layer: str | Sequence[str], student_layer: str | Sequence[str], **options: Any):
    super().__init__(teacher_layer, student_layer, connector=None, alignment=None, **options)

  def check_shape(self, shape: tf.TensorShape, owner: str) -> None:
    if shape.rank != 4 or not shape[2:3].is_compatible_with(shape[3:]):
      raise ValueError(
        f"the {owner}'s feature must be self-attention [batch, heads, tokens, tokens]: call MultiHeadAttention with "
        "return_attention_scores=True, and tap the second output, as in 'attention:1'."
      )

  def build_pair(self, teacher: tf.TensorShape, student: tf.TensorShape) -> None:
    super().build_pair(teacher, student)
    if not teacher[1:].is_compatible_with(student[1:]):
      raise ValueError(
        "heads are compared one by one, and tokens too: heads and tokens must agree; use `ValueRelations` for networks "
        "with other heads."
      )

  def mask_of(self, feature: tf.Tensor) -> tf.Tensor | None:
    mask = super().mask_of(feature)  # Keras' is that of pairs: [batch, 1, tokens, tokens].
    return mask if mask is None or mask.shape.rank == 2 else tf.reduce_any(mask, axis=[1, 3])

  def without_dropped(self, feature: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    counts = _of_tokens(weights, feature, axis=2) != 0
    return tf.where(counts[:, None, :, None] & counts[:, None, None, :], feature, 0.0)

  def call(self, inputs: tuple, training: bool | None = None, sample_weight: tf.Tensor | None = None) -> tf.Tensor:
    total = []
    for teacher, student in zip(*inputs[:2], strict=True):
      weights = None if sample_weight is None else _of_tokens(sample_weight, student, axis=2)
      total.append(self.divergence(teacher, student, weights))
    return tf.add_n(total)

  def divergence(self, teacher: tf.Tensor, student: tf.Tensor, weights: tf.Tensor | None) -> tf.Tensor:
    """The loss of one pair: float32 [batch]."""
    raise NotImplementedError


@keras.utils.register_keras_serializable(package="tfkd")
class AttentionMaps(_Attention):
  """The student's attention matrices reproduce the teacher's, head by head (TinyBERT).

  Use it between transformers of equally many heads, on layers spread evenly over the teacher's. A layer
  `MultiHeadAttention` that is called with `return_attention_scores=True` has the matrices, after softmax, as its second
  output, `name:1`; the paper takes them before softmax.
  Source: Jiao et al. 2020, arXiv:1909.10351; see `tfkd.losses.attention_maps`. Keras' masks of padding and
  `sample_weight` [batch, tokens] exclude queries and keys.

  Args:
    teacher_layer, student_layer: see `TappedObjective`; heads and tokens must agree.
    **options: weight, output and name, see `Objective`.
  Inputs: pair of lists of float [batch, heads, tokens, tokens]. Output: float32 [batch].
  Example: tfkd.objectives.AttentionMaps(["attention3:1", "attention7:1"], ["attention0:1", "attention1:1"])
  """

  acronyms = ("TinyBERT",)

  def divergence(self, teacher: tf.Tensor, student: tf.Tensor, weights: tf.Tensor | None) -> tf.Tensor:
    return losses.attention_maps(teacher, student, weights)


@keras.utils.register_keras_serializable(package="tfkd")
class AttentionDistributions(_Attention):
  """The student's tokens attend to the tokens that the teacher's attend to, as distributions (MiniLM).

  Use it on the last self-attention layer of both transformers, together with `ValueRelations`.
  Source: Wang et al. 2020, arXiv:2002.10957; see `tfkd.losses.attention_divergence`. Keras' masks of padding
  and `sample_weight` [batch, tokens] exclude queries and keys.

  Args:
    teacher_layer, student_layer: see `TappedObjective`; heads and tokens must agree.
    normalized: whether the features are probabilities, after softmax, as `MultiHeadAttention` returns them.
    **options: weight, output and name, see `Objective`.
  Inputs: pair of lists of float [batch, heads, tokens, tokens]. Output: float32 [batch], in nats.
  Example: tfkd.objectives.AttentionDistributions("attention11:1", "attention5:1")
  """

  acronyms = ("MiniLM",)

  def __init__(
    self,
    teacher_layer: str | Sequence[str],
    student_layer: str | Sequence[str],
    *,
    normalized: bool = True,
    **options: Any,
  ):
    super().__init__(teacher_layer, student_layer, **options)
    self.normalized = normalized

  def divergence(self, teacher: tf.Tensor, student: tf.Tensor, weights: tf.Tensor | None) -> tf.Tensor:
    if self.normalized:
      teacher, student = (tf.math.log(tf.maximum(x, _TINY)) for x in (teacher, student))
    return losses.attention_divergence(teacher, student, weights)


@keras.utils.register_keras_serializable(package="tfkd")
class ValueRelations(TappedObjective):
  """The values of the student's tokens relate to each other as the teacher's do (MiniLM).

  Use it on the projected values of the last self-attention layer, or on any tokens; widths may differ, and `heads` need
  not be the networks' own numbers of heads.
  Source: Wang et al. 2020, arXiv:2002.10957; see `tfkd.losses.value_relations`.

  Args:
    teacher_layer, student_layer: see `TappedObjective`; tokens must agree, channels may differ.
    heads: int >= 1 that divides the channels of both, the number of relations of a layer.
    **options: weight, output and name, see `Objective`.
  Inputs: pair of lists of float [batch, tokens, channels]. Output: float32 [batch], in nats.
  Example: tfkd.objectives.ValueRelations("block11", "block3", heads=12)
  """

  acronyms = ("MiniLM",)
  must_agree = "positions"
  positions = "mean"

  def __init__(
    self, teacher_layer: str | Sequence[str], student_layer: str | Sequence[str], *, heads: int, **options: Any
  ):
    super().__init__(teacher_layer, student_layer, connector=None, alignment=None, **options)
    if heads < 1:
      raise ValueError(f"heads must be at least 1; got {heads}.")
    self.heads = heads

  def check_shape(self, shape: tf.TensorShape, owner: str) -> None:
    super().check_shape(shape, owner)
    if shape.rank != 3 or shape[-1] % self.heads:
      raise ValueError(
        f"the {owner}'s feature must be [batch, tokens, channels] with channels that heads={self.heads} divides: set "
        "another number of heads, or tap another layer."
      )

  def call(self, inputs: tuple, training: bool | None = None, sample_weight: tf.Tensor | None = None) -> tf.Tensor:
    total = []
    for teacher, student in self.aligned(inputs, sample_weight):
      weights = None if sample_weight is None else _of_tokens(sample_weight, student, axis=1)
      total.append(losses.value_relations(teacher, student, self.heads, weights))
    return tf.add_n(total)


def _of_tokens(weights: tf.Tensor, feature: tf.Tensor, axis: int) -> tf.Tensor:
  """Weights of the tokens along an axis of a feature: float32 [batch, tokens]."""
  tokens = feature if axis == 1 else feature[:, 0]  # The first head has the same tokens.
  return tf.broadcast_to(at_positions(weights, tokens), tf.shape(tokens)[:2])
