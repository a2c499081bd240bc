"""One row for every objective, with non-default arguments and its value in float64 numpy."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf
import tf_keras as keras

from tests.losses import references
from tfkd import objectives as o
from tfkd.features import ModelOutputs

layers = keras.layers


def cnn(width, name, classes=4):
  """Two stages on images [8, 8, 3]: conv0 bn0 relu0 scores0 pool0 conv1 bn1 relu1 scores1 tokens1 embedding logits."""
  x = inputs = keras.Input((8, 8, 3))
  for i in range(2):
    x = layers.Conv2D(width * 2**i, 3, padding="same", use_bias=False, name=f"conv{i}")(x)
    x = layers.BatchNormalization(momentum=0.9, name=f"bn{i}")(x)
    x = layers.ReLU(name=f"relu{i}")(x)
    size = x.shape[1:]
    x = layers.Reshape((-1, 8, 8), name=f"scores{i}")(x)
    x = layers.Reshape((-1, size[-1]), name=f"tokens{i}")(x)
    x = layers.Reshape(size, name=f"map{i}")(x)
    if i == 0:
      x = layers.MaxPooling2D(name="pool0")(x)
  x = layers.GlobalAveragePooling2D(name="embedding")(x)
  return keras.Model(inputs, layers.Dense(classes, name="logits")(x), name=name)


# Widths of teacher and student; shapes of the layers that the rows tap.
WIDTHS = (8, 4)
BATCH = 6


def shape(layer, width):
  return {
    "bn0": (8, 8, width),
    "relu0": (8, 8, width),
    "pool0": (4, 4, width),
    "bn1": (4, 4, 2 * width),
    "relu1": (4, 4, 2 * width),
    "scores0": (width, 8, 8),
    "scores1": (width // 2, 8, 8),
    "tokens1": (16, 2 * width),
    "embedding": (2 * width,),
  }[layer]


class Row(NamedTuple):
  """An objective and what it must give."""

  make: Callable
  """Makes the objective."""
  expected: Callable
  """Function of (objective, teacher, student, labels) with lists of arrays, or logits; in inference mode."""
  prepare: Callable = lambda objective: None
  """Gives state a value, where the initial one would hide something."""


def _sum(reference, **options):
  """A reference of one pair, added over pairs; there is no connector."""
  return lambda objective, ts, ss, labels: sum(reference(t, s, **options) for t, s in zip(ts, ss, strict=True))


def _connected(reference, connect, **options):
  def value(objective, ts, ss, labels):
    pairs = zip(ts, ss, objective.connectors, strict=True)
    return sum(reference(t, connect(s, layer), **options) for t, s, layer in pairs)

  return value


def _dense(x, layer):
  """Also a 1x1 convolution."""
  kernel, bias = (np.float64(w) for w in layer.get_weights())
  return np.float64(x) @ kernel.reshape(kernel.shape[-2:]) + bias


def _normalized(x):
  """Batch normalisation as it starts, in inference mode."""
  return x / math.sqrt(1 + 1e-5)


def _dense_bn(x, layer):
  kernel = np.float64(layer.layers[0].get_weights()[0])
  return _normalized(np.float64(x) @ kernel.reshape(kernel.shape[-2:]))


def _convolution(x, kernel, bias=0.0):
  """A 3x3 convolution with zero padding."""
  height, width = x.shape[1:3]
  padded = np.pad(np.float64(x), ((0, 0), (1, 1), (1, 1), (0, 0)))
  return bias + sum(
    padded[:, i : i + height, j : j + width] @ np.float64(kernel[i, j]) for i in range(3) for j in range(3)
  )


def _pooled(maps):
  return [np.float64(x).mean(axis=(1, 2)) if x.ndim == 4 else np.float64(x) for x in maps]


def _on_embeddings(reference, **options):
  return lambda objective, ts, ss, labels: sum(
    reference(t, s, **options) for t, s in zip(_pooled(ts), _pooled(ss), strict=True)
  )


def _averaged(x, size):
  return np.array([references.average_pool(example, size) for example in np.float64(x)])


def _logits(reference, factor=1.0, **options):
  return lambda objective, t, s, labels: factor * reference(t, s, **options)


def _negative_cosine(t, s):
  t = np.float64(t)
  cosines = (t * s).sum(-1) / (np.linalg.norm(t, axis=-1) * np.linalg.norm(s, axis=-1))
  return -cosines.mean(axis=(1, 2))


def _labelled(reference, **options):
  return lambda objective, t, s, labels: reference(t, s, labels, **options)


def _standardized(objective, t, s, labels):
  t, s = references.standardize_logits(t), references.standardize_logits(s)
  return 4 * references.soft_target_kl(t, s, 2.0)


def _learned(objective, t, s, labels):
  temperature = 2.0 + 10.0 / (1 + math.exp(-0.5))
  return temperature**2 * references.soft_target_kl(t, s, temperature)


def _attention(objective, ts, ss, labels):
  return sum(
    references.attention_transfer(_averaged(t, (4, 4)), _averaged(s, (4, 4)), power=3, form="paper")
    for t, s in zip(ts, ss, strict=True)
  )


def _flow(objective, ts, ss, labels):
  ss = [_dense(s, layer) for s, layer in zip(ss, objective.connectors, strict=True)]
  gram = [np.einsum("bhwi,bhwj->bij", _averaged(first, (4, 4)), np.float64(second)) / 16 for first, second in (ts, ss)]
  return np.mean((gram[0] - gram[1]) ** 2, axis=(1, 2))


def _singular(objective, ts, ss, labels):
  ss = [_dense(s, layer) for s, layer in zip(ss, objective.connectors, strict=True)]
  return references.singular_vectors(*(list(zip(*maps, strict=True)) for maps in (ts, ss)), rank=2)


def _factors(objective, ts, ss, labels):
  def run(x, model):
    for layer in model.layers:
      if layer.weights:
        x = _convolution(x, *layer.get_weights())
        x = np.where(x > 0, x, 0.1 * x)
    return x

  total = 0.0
  for i, (t, s) in enumerate(zip(ts, ss, strict=True)):
    factor = run(t, objective.paraphrasers[i])
    total += references.factor_transfer(factor, run(s, objective.translators[i]))
    total += references.hint(t, run(factor, objective.restorers[i]))
  return total


def _information(objective, ts, ss, labels):
  variances = [np.log1p(np.exp(np.float64(v))) + 1e-5 for v in objective.variances]
  np.testing.assert_allclose(np.concatenate(variances), 2.0, rtol=1e-5)
  connected = (_dense(s, layer) for s, layer in zip(ss, objective.connectors, strict=True))
  return sum(references.variational_information(*row) for row in zip(ts, connected, variances, strict=True))


def _fill_queues(objective):
  rng = np.random.default_rng(5)
  for queue in objective.queues:
    queue.assign(rng.normal(size=queue.shape))
  objective.queue_labels.assign([0, 1, 2, -1, 3, 1, -1])
  objective.normalizer.assign(3.0)


def _contrastive(objective, ts, ss, labels):
  t, s = (_dense(x, layer) for x, layer in zip((*_pooled(ts), *_pooled(ss)), objective.projections, strict=True))
  queues = [np.float64(q) for q in objective.queues]
  t, s, negative_t, negative_s = ([v / np.linalg.norm(v) for v in rows] for rows in (t, s, *queues))

  def h(a, b):
    e = math.exp(a @ b / 0.5) / 3.0
    return e / (e + 7)

  losses = []
  for a, b, label in zip(t, s, labels, strict=True):
    loss = -2 * math.log(h(a, b))
    for x, y, other in zip(negative_t, negative_s, objective.queue_labels.numpy(), strict=True):
      if other not in (-1, label):
        loss -= math.log(1 - h(a, y)) + math.log(1 - h(b, x))
    losses.append(loss)
  return np.array(losses)


def _nearest(x, size):
  """Row i of n is row floor(i height / n) of the map."""
  rows, columns = ([i * length // n for i in range(n)] for n, length in zip(size, x.shape[1:3], strict=True))
  return x[:, rows][:, :, columns]


def _review(objective, ts, ss, labels):
  ts, ss = ([x[:, None, None, :] if x.ndim == 2 else x for x in features] for features in (ts, ss))
  total, later = 0.0, None
  for i in reversed(range(len(ss))):
    x = _dense_bn(ss[i], objective.entries[i])
    if later is not None:
      later = _nearest(later, x.shape[1:3])
      weights = 1 / (1 + np.exp(-_dense(np.concatenate([x, later], axis=3), objective.attentions[i])))
      x = x * weights[..., :1] + later * weights[..., 1:]
    later = x
    out = _normalized(_convolution(_nearest(x, ts[i].shape[1:3]), objective.exits[i].layers[0].get_weights()[0]))
    total += references.hierarchical_context(ts[i], out)
  return total


def _set_negatives(objective):
  for i, negatives in enumerate(objective.negatives):
    negatives.assign(np.stack([np.linspace(-9, 0, negatives.shape[1]), np.full(negatives.shape[1], 4.0 + i)]))


def _overhaul(objective, ts, ss, labels):
  total = 0.0
  for i, (t, s) in enumerate(zip(ts, ss, strict=True)):
    margin = np.linspace(-9, 0, t.shape[-1]) / (4 + i)
    total += 2.0 ** (i - 1) * references.partial_distance(t, _dense_bn(s, objective.connectors[i]), margin)
  return total


def _recipe(objective, ts, ss, labels):
  connected = [_dense(s, layer) for s, layer in zip(_pooled(ss), objective.connectors, strict=True)]
  return sum(
    references.log_power_distance(_normalized(t), _normalized(s), power=3.0)
    for t, s in zip(_pooled(ts), connected, strict=True)
  )


_BOTH = ["relu0", "relu1"]
ROWS = {
  "soft_targets": Row(lambda: o.SoftTargets(3.0, weight=0.7), _logits(references.soft_target_kl, 9, temperature=3.0)),
  "soft_targets_cross_entropy": Row(
    lambda: o.SoftTargets(3.0, form="cross_entropy", name="cross_entropy"),
    _logits(references.soft_target_cross_entropy, 9, temperature=3.0),
  ),
  "soft_targets_standardized": Row(
    lambda: o.SoftTargets(2.0, form="kl", standardize=True, name="standardized"), _standardized
  ),
  "soft_targets_unscaled": Row(
    lambda: o.SoftTargets(5.0, form="kl", scale_by_t2=False, name="unscaled"),
    _logits(references.soft_target_kl, temperature=5.0),
  ),
  "soft_targets_reverse_kl": Row(
    lambda: o.SoftTargets(3.0, form="reverse_kl", name="reverse_kl"),
    lambda objective, t, s, labels: 9 * references.soft_target_kl(s, t, temperature=3.0),
  ),
  "soft_targets_jsd": Row(
    lambda: o.SoftTargets(3.0, form="jsd", beta=0.2, name="jsd"),
    _logits(references.soft_target_jsd, 9, temperature=3.0, beta=0.2),
  ),
  "binary_soft_targets": Row(
    lambda: o.BinarySoftTargets(2.0), _logits(references.binary_soft_target_kl, 4, temperature=2.0)
  ),
  "binary_soft_targets_unscaled": Row(
    lambda: o.BinarySoftTargets(2.0, scale_by_t2=False, name="unscaled_labels"),
    _logits(references.binary_soft_target_kl, temperature=2.0),
  ),
  "match_outputs": Row(lambda: o.MatchOutputs("log_cosh"), _logits(references.keras_loss, loss="log_cosh")),
  "match_outputs_by_a_loss_object": Row(
    lambda: o.MatchOutputs(keras.losses.MeanSquaredError(), name="mse"), _logits(references.keras_loss)
  ),
  "match_features": Row(
    lambda: o.MatchFeatures("relu1", "relu1", connector="project"), _connected(_negative_cosine, _dense)
  ),
  "match_features_of_two_pairs": Row(
    lambda: o.MatchFeatures(_BOTH, _BOTH, loss="mse", connector="project", name="mse_features"),
    _connected(lambda t, s: references.keras_loss(t, s).mean(axis=(1, 2)), _dense),
  ),
  "decoupled": Row(
    lambda: o.Decoupled(2.0, alpha=0.5, beta=3.0), _labelled(references.decoupled, temperature=2.0, alpha=0.5, beta=3.0)
  ),
  "normalized": Row(lambda: o.Normalized(2.0, gamma=0.5), _labelled(references.normalized, temperature=2.0, gamma=0.5)),
  "dist": Row(
    lambda: o.Dist(3.0, inter_weight=0.5, intra_weight=2.0),
    _logits(references.dist, temperature=3.0, inter_weight=0.5, intra_weight=2.0),
  ),
  "multi_level": Row(lambda: o.MultiLevel((1.0, 8.0)), _logits(references.multi_level, temperatures=(1.0, 8.0))),
  "multi_level_standardized": Row(
    lambda: o.MultiLevel((2.0, 4.0), standardize=True, name="standardized_levels"),
    _logits(references.multi_level, temperatures=(2.0, 4.0), standardize=True),
  ),
  "transformed_teacher": Row(
    lambda: o.TransformedTeacher(3.0, weighted=True),
    _logits(references.transformed_teacher, temperature=3.0, weighted=True),
  ),
  "learned_temperature": Row(lambda: o.LearnedTemperature(low=2.0, span=10.0, start=0.5, ramp_steps=3), _learned),
  "hint": Row(lambda: o.Hint(_BOTH, _BOTH, weight=2.0, connector="conv1x1"), _connected(references.hint, _dense)),
  "hint_on_vectors": Row(
    lambda: o.Hint("embedding", "embedding", connector="linear", name="embedding"), _connected(references.hint, _dense)
  ),
  "hint_with_a_layer": Row(
    lambda: o.Hint("relu1", "relu1", connector=layers.Dense(16, name="mine"), name="mine"),
    _connected(references.hint, _dense),
  ),
  "hint_with_batch_norm": Row(
    lambda: o.Hint("relu1", "relu1", connector="conv1x1_bn", name="normalized_hint"),
    _connected(references.hint, _dense_bn),
  ),
  "euclidean": Row(
    lambda: o.Euclidean("relu1", "relu1", weight=0.1, connector="conv1x1"), _connected(references.euclidean, _dense)
  ),
  "normalized_feature_matching": Row(
    lambda: o.NormalizedFeatureMatching(_BOTH, _BOTH, weight=1.0, connector="conv1x1", epsilon=0.5),
    _connected(references.normalized_feature_matching, _dense, epsilon=0.5),
  ),
  "attention_transfer": Row(
    lambda: o.AttentionTransfer("relu1", "relu0", weight=5.0, alignment="average_pool", power=3, form="paper"),
    _attention,
  ),
  "neuron_selectivity": Row(lambda: o.NeuronSelectivity(_BOTH, _BOTH, weight=2.0), _sum(references.neuron_selectivity)),
  "channel_wise": Row(
    lambda: o.ChannelWise("relu1", "relu1", 2.0, weight=5.0, connector="project"),
    _connected(references.channel_wise_kl, _dense, temperature=2.0),
  ),
  "channel_wise_of_two_pairs": Row(
    lambda: o.ChannelWise(["relu1", "tokens1"], ["relu1", "tokens1"], connector="project", name="two_pairs"),
    _connected(references.channel_wise_kl, _dense),
  ),
  "similarity_preserving": Row(
    lambda: o.SimilarityPreserving("relu1", "relu0", weight=7.0), _sum(references.similarity_preserving)
  ),
  "flow_of_solution_procedure": Row(
    lambda: o.FlowOfSolutionProcedure(_BOTH, _BOTH, weight=2.0, connector="conv1x1"), _flow
  ),
  "kdsvd": Row(
    lambda: o.KDSVD(["relu0", "relu1"], ["relu1", "relu0"], weight=2.0, connector="conv1x1", rank=2), _singular
  ),
  "activation_boundary": Row(
    lambda: o.ActivationBoundary("bn1", "bn1", weight=0.1, margin=0.5),
    _connected(references.activation_boundary, _dense_bn, margin=0.5),
  ),
  "factor_transfer": Row(lambda: o.FactorTransfer("relu1", "relu1", weight=3.0, rate=0.25), _factors),
  "variational_information": Row(
    lambda: o.VariationalInformation(_BOTH, _BOTH, weight=0.5, initial_variance=2.0), _information
  ),
  "review_kd": Row(lambda: o.ReviewKD([*_BOTH, "embedding"], [*_BOTH, "embedding"], weight=2.0, channels=5), _review),
  "review_kd_of_other_sizes": Row(
    lambda: o.ReviewKD(["relu0", "pool0", "relu1"], ["relu1", "relu0", "bn0"], channels=3, name="resized"), _review
  ),
  "ofd": Row(lambda: o.OFD(["bn0", "bn1"], ["bn0", "bn1"], weight=0.1), _overhaul, _set_negatives),
  "sim_kd": Row(
    lambda: o.SimKD("relu0", "relu1", weight=2.0),
    lambda objective, ts, ss, labels: references.hint(_averaged(ts[0], (4, 4)), ss[0]),
  ),
  "srd": Row(lambda: o.SRD("embedding", "relu1", weight=0.5, power=3.0), _recipe),
  "ickd": Row(
    lambda: o.ICKD("relu1", "relu0", weight=0.5), _connected(references.inter_channel_correlation, _dense_bn)
  ),
  "rkd_distance": Row(
    lambda: o.RKDDistance(["embedding", "relu0"], ["relu1", "relu0"], weight=3.0),
    _on_embeddings(references.rkd_distance),
  ),
  "rkd_angle": Row(lambda: o.RKDAngle("embedding", "embedding", weight=3.0), _on_embeddings(references.rkd_angle)),
  "distance_metric": Row(
    lambda: o.DistanceMetric("embedding", "embedding", weight=3.0, connector="linear"),
    lambda objective, ts, ss, labels: references.distance_metric(ts[0], _dense(ss[0], objective.connectors[0])),
  ),
  "correlation_congruence": Row(
    lambda: o.CorrelationCongruence("embedding", "embedding", weight=3.0, gamma=0.7, order=3),
    _on_embeddings(references.correlation_congruence, gamma=0.7, order=3),
  ),
  "probabilistic_transfer": Row(
    lambda: o.ProbabilisticTransfer("embedding", "embedding", weight=9.0),
    _on_embeddings(references.probabilistic_transfer),
  ),
  "attention_maps": Row(lambda: o.AttentionMaps("scores1", "scores0", weight=3.0), _sum(references.attention_maps)),
  "attention_distributions": Row(
    lambda: o.AttentionDistributions("scores1", "scores0", weight=3.0, normalized=False),
    _sum(references.attention_divergence),
  ),
  "value_relations": Row(
    lambda: o.ValueRelations("tokens1", "tokens1", weight=3.0, heads=2), _sum(references.value_relations, heads=2)
  ),
  "contrastive": Row(
    lambda: o.Contrastive("embedding", "relu1", weight=0.5, dimensions=3, queue_size=7, temperature=0.5),
    _contrastive,
    _fill_queues,
  ),
}


def inputs(objective, seed=0):
  """Random inputs of an objective as lists of arrays or logits, teacher's, student's and labels."""
  rng = np.random.default_rng(seed)
  sides = []
  for names, width in zip((objective.teacher_layers, objective.student_layers), WIDTHS, strict=True):
    features = {name: rng.normal(size=(BATCH, *shape(name, width))).astype(np.float32) for name in names}
    sides.append([features[name] for name in names] if names else rng.normal(size=(BATCH, 4)).astype(np.float32))
  return (*sides, np.array([0, 1, 2, 3, 1, 0]))


def called(objective, teacher, student, labels, **options):
  """Calls an objective as the Distiller does."""
  sides = []
  for names, values in ((objective.teacher_layers, teacher), (objective.student_layers, student)):
    values = tf.nest.map_structure(tf.convert_to_tensor, values)
    sides.append(ModelOutputs(None, dict(zip(names, values, strict=True))) if names else ModelOutputs(values))
  return objective(objective.inputs(o.Batch(*sides, tf.convert_to_tensor(labels))), **options)
