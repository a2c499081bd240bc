"""Self-attention between transformers, with padding, and the layers that do not fit."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import tfkd
from tests.losses import references
from tfkd import objectives as o

layers = keras.layers
RNG = np.random.default_rng(0)
TOKENS = RNG.integers(1, 9, (5, 6)) * (np.arange(6) < np.array([6, 2, 3, 5, 1])[:, None])
LABELS = RNG.integers(0, 3, 5)
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def _transformer(name, width=6, heads=2, masked=True):
  """Classifies sequences; its layer "attend" has the attention as its second output."""
  inputs = keras.Input((6,), dtype="int32")
  x = layers.Embedding(9, width, mask_zero=masked, embeddings_initializer=keras.initializers.RandomNormal())(inputs)
  x = layers.Dense(width, kernel_initializer=keras.initializers.RandomNormal(stddev=9.0), name="values")(x)
  y, _ = layers.MultiHeadAttention(heads, 4, name="attend")(x, x, return_attention_scores=True)
  return keras.Model(inputs, layers.Dense(3, name="logits")(layers.GlobalAveragePooling1D()(y)), name=name)


def _objectives():
  return [
    o.AttentionMaps("attend:1", "attend:1"),
    o.AttentionDistributions("attend:1", "attend:1"),
    o.ValueRelations("values", "values", heads=2),
  ]


def _references(teacher, student, weights):
  def read(model):
    attend, values = model.get_layer("attend"), model.get_layer("values")
    return [np.float64(x) for x in keras.Model(model.input, [attend.output[1], values.output])(TOKENS)]

  (t, t_values), (s, s_values) = read(teacher), read(student)
  logarithms = (np.log(np.maximum(x, 1e-30)) for x in (t, s))
  return {
    "attention_maps": references.attention_maps(t, s, weights),
    "attention_distributions": references.attention_divergence(*logarithms, weights),
    "value_relations": references.value_relations(t_values, s_values, 2, weights),
  }


def test_padding_is_excluded_by_the_keras_mask_and_widths_may_differ():
  keras.utils.set_random_seed(0)
  teacher, student = _transformer("teacher", width=8), _transformer("student")
  distiller = tfkd.Distiller(teacher, student, _objectives())
  distiller.compile("sgd", LOSS)
  logs = distiller.test_on_batch(TOKENS, LABELS, return_dict=True)
  valid = TOKENS > 0  # The mean over all valid queries, as Keras reduces a masked loss.
  for name, expected in _references(teacher, student, valid * valid.size / valid.sum()).items():
    assert expected.mean() > 1e-4, name
    np.testing.assert_allclose(logs[name], expected.mean(), rtol=1e-3, err_msg=name)
  assert np.isfinite(distiller.train_on_batch(TOKENS, LABELS, return_dict=True)["loss"])


def test_weights_of_examples_multiply_their_losses():
  keras.utils.set_random_seed(1)
  teacher, student = _transformer("teacher", masked=False), _transformer("student", masked=False)
  distiller = tfkd.Distiller(teacher, student, _objectives())
  distiller.compile("sgd", LOSS)
  weights = np.array([1.0, 0.0, 2.0, 0.5, 3.0], np.float32)
  logs = distiller.test_on_batch(TOKENS, LABELS, sample_weight=weights, return_dict=True)
  for name, expected in _references(teacher, student, None).items():
    np.testing.assert_allclose(logs[name], (expected * weights).mean(), rtol=1e-3, err_msg=name)


@pytest.mark.parametrize(
  "make, words",
  [
    (lambda: o.AttentionMaps("attend:0", "attend:1"), r"'attend:0' .*teacher's feature must be self-attention.*call"),
    (lambda: o.AttentionMaps("attend:1", "attend:1"), "heads and tokens must agree; use `ValueRelations`"),
    (lambda: o.AttentionDistributions("attend:1", "attend:2"), "has 2 outputs and no number 2: name one of attend:0"),
    (
      lambda: o.ValueRelations("values", "values", heads=4),
      r"teacher's feature must be .* heads=4 divides: set another",
    ),
    (lambda: o.ValueRelations("logits", "logits", heads=3), "is a vector: tap a layer before the pooling"),
    (lambda: o.ValueRelations("values", "values", heads=0), "heads must be at least 1; got 0"),
  ],
)
def test_what_does_not_fit_is_refused_with_the_distiller(make, words):
  with pytest.raises(ValueError, match=words):
    tfkd.Distiller(_transformer("teacher"), _transformer("student", heads=3), [make()])


def test_taps_of_numbered_outputs_are_serialized():
  objective = o.AttentionMaps(["a:1", "b:1"], ["a:1", "a:1"])
  copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(objective))
  assert copy.teacher_layers == ("a:1", "b:1")
  config = {"teacher_layer": "a:1", "student_layer": "b:1"}
  assert isinstance(o.get({"class_name": "tinybert", "config": config}), o.AttentionMaps)
  with pytest.raises(
    ValueError, match="names several objectives: choose one of attention_distributions, value_relations"
  ):
    o.get("minilm")


def test_a_row_without_valid_tokens_gives_zero():
  scores = tf.random.stateless_normal([2, 2, 4, 4], (0, 1))
  weights = tf.constant([[0.0] * 4, [1.0] * 4])
  for loss in (tfkd.losses.attention_maps, tfkd.losses.attention_divergence):
    with tf.GradientTape() as tape:
      tape.watch(scores)
      value = loss(2 * scores, scores, weights)
    assert value[0] == 0 and value[1] > 0
    gradient = tape.gradient(value, scores)
    assert np.isfinite(gradient).all() and (gradient[0].numpy() == 0).all()
