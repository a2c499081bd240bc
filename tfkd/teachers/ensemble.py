"""Several teachers as one."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfkd.features import ModelOutputs
from tfkd.teachers.frozen import as_teacher, digest_of_weights, freeze, name_of_preprocessing

_MEANS = ("logits", "probabilities")


class Ensemble:
  """The weighted mean of several teachers' logits, or the logarithm of the weighted mean of their probabilities.

  The logarithm of probabilities is logits again: at temperature 1 the ensemble's distribution is the mean distribution.

  Args:
    teachers: models, functions or teachers, each with its own preprocessing, of the same classes.
    weights: numbers >= 0, one for each teacher; divided by their sum. None gives equal weights.
    mean_of: "logits" or "probabilities".

  Raises:
    ValueError: there are no teachers, weights do not match, or `mean_of` is unknown.
  """

  def __init__(self, teachers: Sequence[Any], weights: Sequence[float] | None = None, mean_of: str = "logits"):
    if not teachers:
      raise ValueError("an ensemble needs at least one teacher.")
    weights = [1.0] * len(teachers) if weights is None else [float(w) for w in weights]
    if len(weights) != len(teachers) or min(weights) < 0 or not 0 < sum(weights) < float("inf"):
      raise ValueError(f"weights must be finite numbers >= 0, one for each of {len(teachers)} teachers; got {weights}.")
    if mean_of not in _MEANS:
      raise ValueError(f"mean_of must be one of {', '.join(_MEANS)}; got {mean_of!r}.")
    self.teachers = [as_teacher(teacher) for teacher in teachers]
    self._shares = [weight / sum(weights) for weight in weights]
    self._mean_of = mean_of

  def __call__(self, inputs: Any, features: Sequence[str] = ()) -> ModelOutputs:
    """Runs every teacher once, and returns the mean of their outputs.

    Raises:
      ValueError: features are asked for: an ensemble has none.
    """
    if features:
      self.feature_shapes(features)
    outputs = [teacher(inputs).outputs for teacher in self.teachers]
    mean = _mean_logits if self._mean_of == "logits" else _mean_probabilities
    outputs = tf.nest.map_structure(lambda *logits: mean(self._shares, logits), *outputs)
    return ModelOutputs(tf.nest.map_structure(freeze, outputs))

  def describe(self) -> dict[str, Any]:
    """Digest of the weights of all members, their preprocessings, and how their outputs are combined."""
    described = {
      "weights": digest_of_weights(getattr(teacher, "model", None) for teacher in self.teachers),
      "preprocessing": [name_of_preprocessing(getattr(teacher, "preprocess", None)) for teacher in self.teachers],
      "ensemble": {"weights": self._shares, "mean_of": self._mean_of},
    }
    others = [teacher.describe() for teacher in self.teachers if not hasattr(teacher, "model")]
    return described | ({"members": others} if others else {})

  def feature_shapes(self, features: Sequence[str]) -> dict[str, tf.TensorShape]:
    """Raises ValueError: an ensemble has no layers."""
    raise ValueError(
      f"an Ensemble has no layers to tap, and objectives read {', '.join(features)}: use one of its models as the "
      "teacher, or objectives on logits."
    )


def _mean_logits(shares: Sequence[float], logits: Sequence[tf.Tensor]) -> tf.Tensor:
  return tf.add_n([share * x for share, x in zip(shares, logits, strict=True)])


def _mean_probabilities(shares: Sequence[float], logits: Sequence[tf.Tensor]) -> tf.Tensor:
  # log sum_i share_i softmax(x_i), without leaving the logarithms.
  terms = [tf.math.log(share) + tf.nn.log_softmax(x) for share, x in zip(shares, logits, strict=True) if share > 0]
  return tf.reduce_logsumexp(tf.stack(terms), axis=0)
