"""Objectives on outputs that are no class scores: independent labels, masks, and numbers."""

import numpy as np
import pytest
import tf_keras as keras

import tfkd
from tests.losses import references
from tfkd.objectives import BinarySoftTargets, Decoupled, Hint, MatchFeatures, MatchOutputs, SoftTargets

layers = keras.layers
BINARY = keras.losses.BinaryCrossentropy(from_logits=True)
X = np.random.default_rng(0).normal(size=(8, 6)).astype(np.float32)
PICTURES = np.random.default_rng(1).normal(size=(4, 5, 5, 2)).astype(np.float32)


def _dense(units=3, activation=None):
  return keras.Sequential([keras.Input((6,)), layers.Dense(5, name="hidden"), layers.Dense(units, activation)])


def _numbers():
  return keras.Sequential([keras.Input((6,)), layers.Dense(1), layers.Lambda(lambda x: x[:, 0])])


def _masks():
  return keras.Sequential([keras.Input((5, 5, 2)), layers.Conv2D(1, 3, padding="same")])


def _evaluated(teacher, student, objective, loss, x, y, sample_weight=None):
  distiller = tfkd.Distiller(teacher, student, [objective])
  distiller.compile(keras.optimizers.SGD(0.1), loss)
  logs = distiller.evaluate(x, y, sample_weight=sample_weight, batch_size=len(x), verbose=0, return_dict=True)
  return logs, teacher.predict(x, verbose=0), student.predict(x, verbose=0)


@pytest.mark.parametrize("units", [1, 3])
def test_labels_are_independent_and_agreement_is_their_share(units):
  y = np.random.default_rng(2).integers(0, 2, (8, units))
  weights = np.float32([1, 0, 2, 1, 1, 0.5, 1, 1])
  logs, t, s = _evaluated(_dense(units), _dense(units), BinarySoftTargets(2.0), BINARY, X, y, weights)
  expected = 4 * references.binary_soft_target_kl(t, s, 2.0)
  np.testing.assert_allclose(logs["binary_soft_targets"], (expected * weights).mean(), rtol=1e-4)
  same = ((t > 0) == (s > 0)).mean(axis=1)
  np.testing.assert_allclose(logs["agreement"], same[weights > 0].mean(), rtol=1e-6)


def test_pixels_of_a_mask_have_weights():
  y = np.random.default_rng(2).integers(0, 2, (4, 5, 5, 1))
  weights = np.random.default_rng(3).integers(0, 2, (4, 5, 5)).astype(np.float32)
  logs, t, s = _evaluated(_masks(), _masks(), BinarySoftTargets(1.0), BINARY, PICTURES, y, weights)
  expected = references.binary_soft_target_kl(t.reshape(-1, 1), s.reshape(-1, 1), 1.0).reshape(4, 5, 5)
  np.testing.assert_allclose(logs["binary_soft_targets"], (expected * weights).mean(), rtol=1e-4)
  np.testing.assert_allclose(logs["agreement"], ((t > 0) == (s > 0))[..., 0][weights > 0].mean(), rtol=1e-6)


@pytest.mark.parametrize("make", [_numbers, lambda: _dense(1), lambda: _dense(3)])
def test_numbers_are_compared_by_a_keras_loss_and_have_no_agreement(make):
  teacher, student = make(), make()
  y = np.zeros((8, *teacher.output_shape[1:]), np.float32)
  logs, t, s = _evaluated(teacher, student, MatchOutputs("log_cosh"), "mse", X, y)
  expected = np.log(np.cosh(np.float64(s) - t)).mean()
  np.testing.assert_allclose(logs["match_outputs"], expected, rtol=1e-4)
  assert "agreement" not in logs


def test_one_label_without_a_last_axis():
  logs, t, s = _evaluated(_numbers(), _numbers(), BinarySoftTargets(1.0), BINARY, X, np.arange(8) % 2)
  expected = references.binary_soft_target_kl(t[:, None], s[:, None], 1.0).mean()
  np.testing.assert_allclose(logs["binary_soft_targets"], expected, rtol=1e-4)
  np.testing.assert_allclose(logs["agreement"], ((t > 0) == (s > 0)).mean(), rtol=1e-6)


def test_training_lowers_the_distance_to_the_teacher():
  teacher, student = _dense(), _dense()
  distiller = tfkd.Distiller(teacher, student, [BinarySoftTargets(2.0), MatchFeatures("hidden", "hidden")])
  distiller.compile(keras.optimizers.Adam(0.01), BINARY)
  history = distiller.fit(X, np.zeros((8, 3)), batch_size=8, epochs=30, verbose=0).history
  assert all(history[name][-1] < history[name][0] for name in ("binary_soft_targets", "match_features"))
  restored = type(distiller).from_config(distiller.get_config())
  assert [o.get_config() for o in restored.objectives] == [o.get_config() for o in distiller.objectives]


@pytest.mark.parametrize(
  "teacher, student, objective, words",
  [
    ((3,), (3, "sigmoid"), BinarySoftTargets(), "reads the student's logits, and the student ends in sigmoid"),
    ((3, "sigmoid"), (3,), BinarySoftTargets(), "logits of independent labels, and the teacher .* ends in sigmoid"),
    ((3, "softmax"), (3,), BinarySoftTargets(), "logits of independent labels, and the teacher .* ends in softmax"),
    ((3,), (2,), BinarySoftTargets(), r"value by value, .* shape \(None, 3\), the student's \(None, 2\)"),
    ((3,), (1,), MatchOutputs("mae"), r"value by value, .* shape \(None, 3\), the student's \(None, 1\)"),
    ((1,), (1,), SoftTargets(), "one logit or one number is no distribution"),
  ],
)
def test_models_that_do_not_fit_are_refused(teacher, student, objective, words):
  with pytest.raises(ValueError, match=words):
    tfkd.Distiller(_dense(*teacher), _dense(*student), [objective])


def _heads(*names):
  inputs = keras.Input((6,))
  return keras.Model(inputs, {name: layers.Dense(3)(inputs) for name in names})


@pytest.mark.parametrize(
  "teacher, student, output, words",
  [
    (("a", "c"), ("a", "b"), "b", "reads output 'b', and the teacher returns 'a', 'c': set output to one"),
    (("a", "b"), ("a", "c"), "b", "reads output 'b', and the student returns 'a', 'c': set output to one"),
    (("a",), ("a", "b"), "b", "reads output 'b', and the teacher returns 'a'"),
    (("a", "b"), ("a", "b"), None, "reads output None, and the student returns 'a', 'b'"),
  ],
)
def test_outputs_that_a_model_lacks_are_refused(teacher, student, output, words):
  with pytest.raises(ValueError, match=words):
    tfkd.Distiller(_heads(*teacher), _heads(*student), [MatchOutputs(output=output)])


def test_labels_of_other_elements_are_refused():
  distiller = tfkd.Distiller(_tokens(), _tokens(), [Decoupled(2.0)], hard_loss_weight=0.0)
  distiller.compile("sgd", run_eagerly=True)
  with pytest.raises(
    ValueError, match=r"class indices \[batch, 4\] or probabilities \[batch, 4, 3\]; got shape \(8, 5\)"
  ):
    distiller.test_on_batch(X[:, :4, None], np.zeros((8, 5), int))


def _tokens():
  return keras.Sequential([keras.Input((4, 1)), layers.Dense(3)])


def test_losses_on_labels_are_refused_when_the_objective_is_made():
  for make in (MatchOutputs, lambda loss: MatchFeatures("a", "b", loss=loss)):
    with pytest.raises(ValueError, match="categorical_crossentropy expects labels or probabilities"):
      make("categorical_crossentropy")
    with pytest.raises(ValueError, match="BinarySoftTargets"):
      make(keras.losses.BinaryCrossentropy(from_logits=True))
    with pytest.raises(TypeError, match="got 3"):
      make(3)
    import keras as keras3

    with pytest.raises(TypeError, match="a tf_keras loss"):
      make(keras3.losses.MeanSquaredError())


def test_hints_equal_mean_squared_errors_of_features():
  teacher, student = _dense(), _dense()
  distiller = tfkd.Distiller(
    teacher, student, [Hint("hidden", "hidden"), MatchFeatures("hidden", "hidden", loss="mse")]
  )
  distiller.compile(keras.optimizers.SGD(0.1), BINARY)
  logs = distiller.test_on_batch(X, np.zeros((8, 3)), return_dict=True)
  np.testing.assert_allclose(logs["hint"], logs["match_features"], rtol=1e-6)
