"""Several teachers as one."""

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from tfkd.features import ModelOutputs
from tfkd.features.outputs import flat_keys_of, part_of
from tfkd.teachers.frozen import as_teacher, digest_of_weights, freeze, name_of_preprocessing

_MEANS = ("logits", "probabilities")


class Ensemble:
  """The weighted mean of several teachers' logits, or the logarithm of the weighted mean of their probabilities.

  The logarithm of probabilities is logits again: at temperature 1 the ensemble's distribution is the mean distribution.
  Teachers of several outputs, in a list, tuple or dict, are averaged output by output.

  Args:
    teachers: models, functions or teachers, each with its own preprocessing, of the same classes.
    weights: numbers >= 0, one for each teacher; divided by their sum. None gives equal weights.
    mean_of: "logits" or "probabilities"; or a dict from output key (index in a list) to one of them, with "logits" for
      outputs that it does not name, such as boxes, whose probabilities would be meaningless.

  Raises:
    ValueError: there are no teachers, weights do not match, or `mean_of` is unknown.
  """

  def __init__(
    self, teachers: Sequence[Any], weights: Sequence[float] | None = None, mean_of: str | Mapping[Any, str] = "logits"
  ):
    if not teachers:
      raise ValueError("an ensemble needs at least one teacher.")
    weights = [1.0] * len(teachers) if weights is None else [float(w) for w in weights]
    if len(weights) != len(teachers) or min(weights) < 0 or not 0 < sum(weights) < float("inf"):
      raise ValueError(f"weights must be finite numbers >= 0, one for each of {len(teachers)} teachers; got {weights}.")
    means = list(mean_of.values()) if isinstance(mean_of, Mapping) else [mean_of]
    if any(mean not in _MEANS for mean in means):
      raise ValueError(f"mean_of must be one of {', '.join(_MEANS)}; got {mean_of!r}.")
    self.teachers = [as_teacher(teacher) for teacher in teachers]
    self._shares = [weight / sum(weights) for weight in weights]
    self._mean_of = dict(mean_of) if isinstance(mean_of, Mapping) else mean_of

  def __call__(self, inputs: Any, features: Sequence[str] = ()) -> ModelOutputs:
    """Runs every teacher once, and returns the mean of their outputs.

    Raises:
      ValueError: features are asked for: an ensemble has none; the teachers' outputs have different structures or
        shapes; or `mean_of` names an output that they lack.
    """
    if features:
      self.feature_shapes(features)
    outputs = [teacher(inputs).outputs for teacher in self.teachers]
    keys = _common_keys(outputs)
    unknown = [key for key in self._mean_of if key not in keys] if isinstance(self._mean_of, dict) else []
    if unknown:
      raise ValueError(f"mean_of names {', '.join(map(repr, unknown))}; the outputs of the ensemble are {keys}.")
    means = [self._mean(key, parts) for key, *parts in zip(keys, *map(tf.nest.flatten, outputs), strict=True)]
    return ModelOutputs(tf.nest.pack_sequence_as(outputs[0], means))

  def _mean(self, key: Any, parts: Sequence[tf.Tensor]) -> tf.Tensor:
    """The mean of one output of all members."""
    kind = self._mean_of.get(key, "logits") if isinstance(self._mean_of, dict) else self._mean_of
    mean = _mean_logits if kind == "logits" else _mean_probabilities
    return freeze(mean(self._shares, [tf.cast(part, tf.float32) for part in parts]))

  def describe(self) -> dict[str, Any]:
    """Digest of the weights of all members, their preprocessings, and how their outputs are combined."""
    mean_of = self._mean_of
    if isinstance(mean_of, dict):  # As JSON stores it.
      mean_of = {str(key): mean for key, mean in mean_of.items()}
    described = {
      "weights": digest_of_weights(getattr(teacher, "model", None) for teacher in self.teachers),
      "preprocessing": [name_of_preprocessing(getattr(teacher, "preprocess", None)) for teacher in self.teachers],
      "ensemble": {"weights": self._shares, "mean_of": mean_of},
    }
    others = [teacher.describe() for teacher in self.teachers if not hasattr(teacher, "model")]
    return described | ({"members": others} if others else {})

  def feature_shapes(self, features: Sequence[str]) -> dict[str, tf.TensorShape]:
    """Raises ValueError: an ensemble has no layers."""
    raise ValueError(
      f"an Ensemble has no layers to tap, and objectives read {', '.join(features)}: use one of its models as the "
      "teacher, or objectives on logits."
    )


def _common_keys(members: Sequence[Any]) -> list[Any]:
  """Keys of the members' outputs, in the order of `tf.nest.flatten`.

  Raises:
    ValueError: members differ in structure or shape, or nest outputs more deeply.
  """
  shapes = [
    tf.nest.map_structure(lambda x: tuple(x.shape) if x.shape.rank is not None else x.shape, m) for m in members
  ]
  kinds = {(isinstance(m, Mapping), tf.nest.is_nested(m), tuple(map(repr, flat_keys_of(m)))) for m in members}
  keys, flat = flat_keys_of(members[0]), [tf.nest.flatten(member) for member in members]
  is_deeper = any(tf.nest.is_nested(part_of(m, key)) for m in members for key in flat_keys_of(m) if key is not None)
  if len(kinds) > 1 or is_deeper or any(map(_differ, *flat)):
    raise ValueError(
      "the teachers of an ensemble must have the same outputs, in tensors of the same shape or in lists, tuples or "
      f"dicts of such tensors; got shapes {' and '.join(map(str, shapes))}: wrap a model in a function that returns "
      "the outputs of the others."
    )
  return keys


def _differ(*tensors: tf.Tensor) -> bool:
  return not all(tensor.shape.is_compatible_with(tensors[0].shape) for tensor in tensors)


def _mean_logits(shares: Sequence[float], logits: Sequence[tf.Tensor]) -> tf.Tensor:
  return tf.add_n([share * x for share, x in zip(shares, logits, strict=True)])


def _mean_probabilities(shares: Sequence[float], logits: Sequence[tf.Tensor]) -> tf.Tensor:
  # log sum_i share_i softmax(x_i), without leaving the logarithms.
  terms = [tf.math.log(share) + tf.nn.log_softmax(x) for share, x in zip(shares, logits, strict=True) if share > 0]
  return tf.reduce_logsumexp(tf.stack(terms), axis=0)
