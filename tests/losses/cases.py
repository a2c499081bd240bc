"""One row for each public loss. The tests of `test_cases` run over all rows."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tests.losses import references
from tfkd import losses

# What a loss may be invariant to, see `test_cases.TRANSFORMS`.
SCALE, SHIFT, ROTATION, CHANNELS = "scale", "shift", "rotation", "channel_order"


class LossCase(NamedTuple):
  """A public loss, its reference and the properties that hold for it.

  Fields without a default are those that a new loss must decide on.
  """

  reference: Callable
  """float64 numpy function of the arguments of `call`."""
  shapes: tuple[tuple[int, ...], tuple[int, ...]]
  """Shapes of the teacher's and the student's tensor. Pairs of maps are stacked on the second axis."""
  per_example: bool
  """Whether the loss is [batch]; otherwise it is a scalar that compares the examples of a batch."""
  invariances: tuple[str, ...]
  """All transforms that leave the loss unchanged; a transform that is missing here must change it."""
  objectives: tuple[str, ...]
  """Names of the objectives that use the loss."""
  refused: tuple[tuple[tuple, tuple, str], ...]
  """Shapes of teacher and student that do not fit, and words of the error."""
  options: dict[str, Any] = {}  # noqa: RUF012
  """Non-default arguments; the reference is compared with and without them."""
  bad_options: tuple[tuple[dict, str], ...] = ()
  """Arguments that are refused, and words of the error."""
  call: Callable | None = None
  """The public function with its required arguments filled in; by default the function itself."""
  draw: str = "features"
  """"features", "logits", "labelled" (logits and labels) or "probabilities" (of the teacher, and logits)."""
  best: Callable = lambda teacher: teacher
  """Student tensor at which `minimum` is reached."""
  minimum: Callable = lambda teacher, *labels: 0.0
  """Value of the loss at the student tensor `best(teacher)`."""
  permutes: bool = True
  """Whether a permutation of the batch permutes the losses, or leaves a scalar unchanged."""
  torch: bool = False
  """Whether `test_torch` has a version of the loss made of PyTorch's operations."""


def _stacked(loss):
  return lambda teacher, student, **kw: loss(tf.unstack(teacher, axis=1), tf.unstack(student, axis=1), **kw)


def _variational(teacher, student, variance=5.0):
  return losses.variational_information(teacher, student, variance)


def _contrastive(teacher, student, **kw):
  return losses.contrastive(teacher, student, tf.reverse(teacher, [0]), tf.reverse(student, [0]), **kw)


def _two_heads(loss):
  return lambda teacher, student, heads=2, **kw: loss(teacher, student, heads, **kw)


def _tempered(loss, default):
  return lambda teacher, student, temperature=default, **kw: loss(teacher, student, temperature, **kw)


_MAPS = ((5, 4, 3, 6), (5, 4, 3, 6))
_TALL_MAPS = ((3, 7, 6, 2), (3, 7, 6, 2))
_MAPS_OF_OTHER_WIDTH = ((5, 4, 3, 6), (5, 4, 3, 2))
_MAPS_OF_OTHER_SIZE = ((5, 4, 3, 6), (5, 2, 2, 6))
_PAIRS_OF_MAPS = ((5, 2, 4, 3, 6), (5, 2, 4, 3, 6))
_EMBEDDINGS = ((6, 5), (6, 3))
_EQUAL_EMBEDDINGS = ((6, 5), (6, 5))
_LOGITS = ((7, 5), (7, 5))

_ATTENTION = ((3, 2, 4, 4), (3, 2, 4, 4))
_TOKEN_WEIGHTS = [[1.0, 2.0, 0.0, 0.5], [0.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]]

# Some, none and all positions of an example count.
_POSITION_WEIGHTS = np.random.default_rng(0).choice([0.0, 0.5, 2.0], (5, 4, 3)) * [[[1]], [[0]], [[1]], [[1]], [[1]]]

_OTHER_CLASSES = (((6, 10), (6, 9), r"\(6, 10\) and \(6, 9\)"),)
_OTHER_SHAPE = (((2, 4), (2, 5), "same shape"),)
_OTHER_BATCH = (((2, 4), (3, 4), "same batch"),)
_NOT_EMBEDDINGS = (
  *_OTHER_BATCH,
  ((2, 4, 1), (2, 4), "teacher embedding must have 2 axes"),
  ((2, 4), (2, 4, 4, 1), "student embedding must have 2 axes"),
)
_NOT_SAME_MAPS = (
  ((2, 4, 4, 3), (2, 2, 2, 3), "agree in batch and positions"),
  ((2, 4), (2, 4), "teacher feature must have axes of positions"),
)
_NOT_ATTENTION = (
  ((2, 4, 4), (2, 4, 4), "teacher attention must have 4 axes"),
  ((2, 2, 4, 4), (2, 3, 4, 4), "same shape"),
  ((2, 2, 4, 5), (2, 2, 4, 5), r"must be \[batch, heads, tokens, tokens\]"),
)
_BAD_TEMPERATURES = tuple(
  ({"temperature": value}, f"positive finite number; got {value}") for value in (0, -1.0, float("nan"), float("inf"))
)

CASES = {
  "soft_target_cross_entropy": LossCase(
    references.soft_target_cross_entropy,
    _LOGITS,
    True,
    (SHIFT,),
    ("soft_targets",),
    _OTHER_CLASSES,
    {"temperature": 5.0},
    _BAD_TEMPERATURES,
    _tempered(losses.soft_target_cross_entropy, 2.0),
    "logits",
    minimum=lambda teacher: references.soft_target_cross_entropy(teacher, teacher, 2.0),
  ),
  "soft_target_kl": LossCase(
    references.soft_target_kl,
    _LOGITS,
    True,
    (SHIFT,),
    ("soft_targets", "learned_temperature"),
    _OTHER_CLASSES,
    {"temperature": 5.0},
    _BAD_TEMPERATURES,
    _tempered(losses.soft_target_kl, 2.0),
    "logits",
    torch=True,
  ),
  "soft_target_reverse_kl": LossCase(
    lambda t, s, temperature: references.soft_target_kl(s, t, temperature),
    _LOGITS,
    True,
    (SHIFT,),
    ("soft_targets",),
    _OTHER_CLASSES,
    {"temperature": 5.0},
    _BAD_TEMPERATURES,
    _tempered(losses.soft_target_reverse_kl, 2.0),
    "logits",
  ),
  "soft_target_jsd": LossCase(
    references.soft_target_jsd,
    _LOGITS,
    True,
    (SHIFT,),
    ("soft_targets",),
    _OTHER_CLASSES,
    {"temperature": 5.0, "beta": 0.1},
    (
      *_BAD_TEMPERATURES,
      *(({"beta": value}, f"between 0 and 1; got {value}") for value in (0, 1.0, -0.5, float("nan"))),
    ),
    _tempered(losses.soft_target_jsd, 2.0),
    "logits",
  ),
  "binary_soft_target_kl": LossCase(
    references.binary_soft_target_kl,
    _LOGITS,
    True,
    (),
    ("binary_soft_targets",),
    _OTHER_CLASSES,
    {"temperature": 5.0},
    _BAD_TEMPERATURES,
    _tempered(losses.binary_soft_target_kl, 2.0),
    "logits",
  ),
  "keras_loss": LossCase(
    references.keras_loss,
    _LOGITS,
    True,
    (),
    ("match_outputs", "match_features"),
    _OTHER_CLASSES,
    {"loss": "log_cosh"},
    (
      ({"loss": "mze"}, "name of a Keras loss, .* got 'mze'"),
      ({"loss": "binary_crossentropy"}, "binary_crossentropy expects labels or probabilities"),
      ({"loss": "hinge"}, "hinge expects labels or probabilities"),
      ({"loss": lambda t, s: tf.reduce_mean(t - s)}, "one value for each element"),
    ),
  ),
  "tempered_cross_entropy": LossCase(
    references.tempered_cross_entropy,
    _LOGITS,
    True,
    (),
    ("soft_targets",),
    _OTHER_CLASSES,
    {"temperature": 5.0},
    _BAD_TEMPERATURES,
    _tempered(losses.tempered_cross_entropy, 2.0),
    "probabilities",
    best=lambda teacher: 2.0 * np.log(teacher),
    minimum=lambda teacher: -np.sum(np.float64(teacher) * np.log(np.float64(teacher)), axis=1),
  ),
  "decoupled": LossCase(
    references.decoupled,
    _LOGITS,
    True,
    (SHIFT,),
    ("decoupled",),
    _OTHER_SHAPE,
    {"temperature": 2.0, "alpha": 0.5, "beta": 3.0},
    _BAD_TEMPERATURES,
    draw="labelled",
    torch=True,
  ),
  "normalized": LossCase(
    references.normalized,
    _LOGITS,
    True,
    (SHIFT,),
    ("normalized",),
    _OTHER_SHAPE,
    {"temperature": 2.0, "gamma": 0.5},
    _BAD_TEMPERATURES,
    draw="labelled",
    minimum=lambda teacher, labels: references.normalized(teacher, teacher, labels),  # Not the least value.
  ),
  "dist": LossCase(
    references.dist,
    _LOGITS,
    False,
    (SHIFT,),
    ("dist",),
    _OTHER_SHAPE,
    {"temperature": 3.0, "inter_weight": 0.5, "intra_weight": 2.0},
    _BAD_TEMPERATURES,
    draw="logits",
    torch=True,
  ),
  "multi_level": LossCase(
    references.multi_level,
    _LOGITS,
    False,
    (SHIFT,),
    ("multi_level",),
    _OTHER_SHAPE,
    {"temperatures": (1.0, 8.0), "standardize": True},
    (({"temperatures": ()}, "at least one number"), ({"temperatures": (0.0,)}, "positive finite number; got 0")),
    draw="logits",
  ),
  "transformed_teacher": LossCase(
    references.transformed_teacher,
    _LOGITS,
    True,
    (SHIFT,),
    ("transformed_teacher",),
    _OTHER_SHAPE,
    {"temperature": 2.0, "weighted": True},
    _BAD_TEMPERATURES,
    _tempered(losses.transformed_teacher, 4.0),
    "logits",
    best=lambda teacher: teacher / 4.0,
  ),
  "hint": LossCase(
    references.hint, _MAPS, True, (), ("hint", "sim_kd"), (((2, 4, 4, 3), (2, 4, 4, 5), "same shape"),), torch=True
  ),
  "euclidean": LossCase(references.euclidean, _MAPS, True, (), ("euclidean",), _OTHER_SHAPE),
  "normalized_feature_matching": LossCase(
    references.normalized_feature_matching,
    _MAPS,
    True,
    (SCALE,),
    ("normalized_feature_matching",),
    _OTHER_SHAPE,
    {"epsilon": 0.5},
  ),
  "attention_transfer": LossCase(
    references.attention_transfer,
    _MAPS_OF_OTHER_WIDTH,
    True,
    (SCALE, ROTATION, CHANNELS),
    ("attention_transfer",),
    _NOT_SAME_MAPS,
    {"power": 3, "form": "paper"},
    (({"form": "torch"}, "'torch'"),),
    torch=True,
  ),
  "neuron_selectivity": LossCase(
    references.neuron_selectivity,
    _MAPS_OF_OTHER_WIDTH,
    True,
    (SCALE, CHANNELS),
    ("neuron_selectivity",),
    _NOT_SAME_MAPS,
  ),
  "channel_wise_kl": LossCase(
    references.channel_wise_kl,
    _MAPS,
    True,
    (SHIFT,),
    ("channel_wise",),
    (
      ((2, 4, 4, 3), (2, 4, 4, 5), "same shape"),
      ((2, 4, 4, 3), (2, 2, 4, 3), "same shape"),
      ((2, 4), (2, 4), "teacher feature must have axes of positions"),
    ),
    {"temperature": 2.0, "weights": _POSITION_WEIGHTS},
    (*_BAD_TEMPERATURES, ({"weights": [1.0, 1.0, 0.0]}, r"weights must have 3 axes; got shape \(3,\)")),
  ),
  "similarity_preserving": LossCase(
    references.similarity_preserving,
    _MAPS_OF_OTHER_WIDTH,
    False,
    (SCALE, ROTATION, CHANNELS),
    ("similarity_preserving",),
    _OTHER_BATCH,
    torch=True,
  ),
  "flow_of_solution_procedure": LossCase(
    references.flow_of_solution_procedure,
    _PAIRS_OF_MAPS,
    True,
    (),
    ("flow_of_solution_procedure",),
    (
      ((2, 2, 4, 4, 3), (2, 2, 4, 4, 5), "Gram matrix"),
      ((2, 3, 4, 4, 3), (2, 3, 4, 4, 3), "must be a pair"),
    ),
    call=_stacked(losses.flow_of_solution_procedure),
  ),
  "singular_vectors": LossCase(
    references.singular_vectors,
    _PAIRS_OF_MAPS,
    True,
    (SCALE,),
    ("kdsvd",),
    (
      ((2, 2, 4, 4, 3), (2, 2, 4, 4, 5), "same channels; .* use a connector"),
      ((2, 3, 4, 4, 3), (2, 3, 4, 4, 3), "must be a pair"),
    ),
    {"rank": 2},
    (({"rank": 7}, "rank must be between 1 and 6, .* got 7"),),
    _stacked(losses.singular_vectors),
  ),
  "activation_boundary": LossCase(
    references.activation_boundary,
    _MAPS,
    True,
    (),
    ("activation_boundary",),
    _OTHER_SHAPE,
    {"margin": 0.5},
    (({"margin": 0}, "margin must be positive; got 0"),),
    minimum=lambda teacher: (np.maximum(1 - np.abs(teacher), 0) ** 2).sum(axis=(1, 2, 3)),  # Of equal features.
  ),
  "factor_transfer": LossCase(references.factor_transfer, _MAPS, True, (SCALE,), ("factor_transfer",), _OTHER_SHAPE),
  "variational_information": LossCase(
    references.variational_information,
    _MAPS,
    True,
    (),
    ("variational_information",),
    _OTHER_SHAPE,
    {"variance": (0.5, 1, 2, 3, 4, 5)},
    call=_variational,
    minimum=lambda teacher: np.full(len(teacher), 0.5 * np.log(5.0)),
  ),
  "hierarchical_context": LossCase(
    references.hierarchical_context,
    _TALL_MAPS,
    True,
    (),
    ("review_kd",),
    (((2, 4), (2, 4), "4 axes"), ((2, 4, 4, 3), (2, 4, 4, 5), "same shape")),
    torch=True,
  ),
  "partial_distance": LossCase(
    references.partial_distance, _MAPS, True, (), ("ofd",), _OTHER_SHAPE, {"margin": (-0.5, -1, -2, -0.1, 0, -1)}
  ),
  "inter_channel_correlation": LossCase(
    references.inter_channel_correlation,
    _MAPS_OF_OTHER_SIZE,
    True,
    (SCALE,),
    ("ickd",),
    (((2, 4, 4, 3), (2, 4, 4, 5), "channel correlations"),),
    best=lambda teacher: teacher[:, ::-1, ::-1],  # Positions do not matter.
    torch=True,
  ),
  "rkd_distance": LossCase(
    references.rkd_distance,
    _EMBEDDINGS,
    False,
    (SCALE, SHIFT, ROTATION, CHANNELS),
    ("rkd_distance",),
    _NOT_EMBEDDINGS,
    torch=True,
  ),
  "rkd_angle": LossCase(
    references.rkd_angle,
    _EMBEDDINGS,
    False,
    (SCALE, SHIFT, ROTATION, CHANNELS),
    ("rkd_angle",),
    _NOT_EMBEDDINGS,
    torch=True,
  ),
  "distance_metric": LossCase(
    references.distance_metric,
    _EMBEDDINGS,
    False,
    (SHIFT, ROTATION, CHANNELS),
    ("distance_metric",),
    _NOT_EMBEDDINGS,
  ),
  "correlation_congruence": LossCase(
    references.correlation_congruence,
    _EMBEDDINGS,
    False,
    (SCALE, ROTATION, CHANNELS),
    ("correlation_congruence",),
    _NOT_EMBEDDINGS,
    {"gamma": 0.7, "order": 3},
    (({"gamma": -1}, "gamma must be positive; got -1"), ({"order": 0}, "order must be at least 1; got 0")),
  ),
  "probabilistic_transfer": LossCase(
    references.probabilistic_transfer,
    _EMBEDDINGS,
    False,
    (SCALE, ROTATION, CHANNELS),
    ("probabilistic_transfer",),
    _NOT_EMBEDDINGS,
    torch=True,
  ),
  "contrastive": LossCase(
    references.contrastive,
    _EQUAL_EMBEDDINGS,
    True,
    (SCALE,),
    ("contrastive",),
    _OTHER_SHAPE,
    {"temperature": 0.5, "ratio": 0.7, "normalizer": 2.0, "mask": (1 - np.eye(6)).tolist()},
    (({"temperature": 0}, "must be positive; got 0"), ({"ratio": 0}, "must be positive; got 0.07 and 0")),
    _contrastive,
    minimum=lambda teacher: references.contrastive(teacher, teacher),
    permutes=False,  # The negatives are the batch in reverse order here.
  ),
  "attention_maps": LossCase(
    references.attention_maps,
    _ATTENTION,
    True,
    (),
    ("attention_maps",),
    _NOT_ATTENTION,
    {"weights": _TOKEN_WEIGHTS},
  ),
  "attention_divergence": LossCase(
    references.attention_divergence,
    _ATTENTION,
    True,
    (SHIFT,),
    ("attention_distributions",),
    _NOT_ATTENTION,
    {"weights": _TOKEN_WEIGHTS},
  ),
  "value_relations": LossCase(
    _two_heads(references.value_relations),
    ((3, 4, 6), (3, 4, 2)),
    True,
    (),
    ("value_relations",),
    (((2, 4), (2, 4), "teacher values must have 3 axes"), ((2, 4, 6), (2, 5, 6), "same shape")),
    {"weights": _TOKEN_WEIGHTS},
    (({"heads": 0}, "heads must divide the channels of values; got heads=0"), ({"heads": 4}, "got heads=4")),
    _two_heads(losses.value_relations),
  ),
  "log_power_distance": LossCase(
    references.log_power_distance,
    _EQUAL_EMBEDDINGS,
    False,
    (),
    ("srd",),
    _OTHER_SHAPE,
    {"power": 3.0},
    (({"power": 0.5}, "power must be at least 1; got 0.5"),),
    minimum=lambda teacher: np.log(1e-30),
  ),
}


def function(name):
  """The public loss, with arguments that have no default filled in as its reference fills them."""
  return CASES[name].call or getattr(losses, name)


def inputs(name, seed=0, batch=None):
  """Random arguments of a loss: the teacher's and the student's float32 array, and int labels where it takes them."""
  case, rng = CASES[name], np.random.default_rng(seed)
  scale = 1.0 if case.draw == "features" else 2.0
  teacher, student = ((scale * rng.normal(size=shape)).astype(np.float32)[:batch] for shape in case.shapes)
  if case.draw == "probabilities":
    teacher = np.exp(teacher) / np.exp(teacher).sum(axis=1, keepdims=True)
  labels = [rng.integers(0, teacher.shape[1], len(teacher))] if case.draw == "labelled" else []
  return [teacher, student, *labels]


def gradient(loss, arguments):
  """Gradient of the sum of a loss with respect to the student's tensor."""
  student = tf.Variable(arguments[1])
  with tf.GradientTape() as tape:
    value = tf.reduce_sum(loss(arguments[0], student, *arguments[2:]))
  return tape.gradient(value, student).numpy()
