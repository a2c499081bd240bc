"""Several teachers as one."""

import tensorflow as tf

from tfkd.teachers.frozen import Frozen

_MEANS = ("logits", "probabilities")


class Ensemble(Frozen):
  """The weighted mean of several teachers' logits, or the logarithm of that of their probabilities.

  The logarithm of probabilities is logits again: at temperature 1 the ensemble's distribution is the mean distribution.

  Args:
    teachers: list of models, functions or `Frozen`, each with a preprocessing of its own, of the same classes.
    weights: list of numbers >= 0, one for each; divided by their sum. None counts all alike.
    mean_of: "logits" or "probabilities".

  Raises:
    ValueError: no teachers, weights that do not match, or an unknown `mean_of`.
  """

  def __init__(self, teachers, weights=None, mean_of="logits"):
    if not teachers:
      raise ValueError("an ensemble needs at least one teacher.")
    weights = [1.0] * len(teachers) if weights is None else [float(w) for w in weights]
    if len(weights) != len(teachers) or min(weights) < 0 or not 0 < sum(weights) < float("inf"):
      raise ValueError(f"weights must be finite numbers >= 0, one for each of {len(teachers)} teachers; got {weights}.")
    if mean_of not in _MEANS:
      raise ValueError(f"mean_of must be one of {', '.join(_MEANS)}; got {mean_of!r}.")
    self.teachers = [teacher if isinstance(teacher, Frozen) else Frozen(teacher) for teacher in teachers]
    self._shares = [weight / sum(weights) for weight in weights]
    self._mean_of = mean_of
    super().__init__(self._mean)

  def describe(self):
    """How its members are joined, as JSON values: a cache of another ensemble of the same members is another one."""
    return {"weights": self._shares, "mean_of": self._mean_of}

  def _mean(self, inputs):
    logits = [teacher(inputs) for teacher in self.teachers]
    if self._mean_of == "logits":
      return tf.nest.map_structure(self._mean_logits, *logits)
    return tf.nest.map_structure(self._mean_probabilities, *logits)

  def _reader(self, layers):
    raise ValueError(
      f"an Ensemble has no layers to tap, and objectives read {', '.join(layers)}: give one of its models as the "
      "teacher, or use objectives on logits."
    )

  def _mean_logits(self, *logits):
    return tf.add_n([share * x for share, x in zip(self._shares, logits, strict=True)])

  def _mean_probabilities(self, *logits):
    # log sum_i share_i softmax(x_i), without leaving the logarithms.
    terms = [
      tf.math.log(share) + tf.nn.log_softmax(x) for share, x in zip(self._shares, logits, strict=True) if share > 0
    ]
    return tf.reduce_logsumexp(tf.stack(terms), axis=0)
