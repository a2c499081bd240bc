"""Terms and metrics of a step: weights by output, regularizers, half precision, another teacher."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from tests.distiller.small import SPARSE, compiled, cross_entropy, dense
from tests.losses import references
from tfkd import Distiller
from tfkd.objectives import Hint, SoftTargets

layers = keras.layers


def test_another_teacher_is_used_by_steps_that_were_traced_before(vectors):
  x, y = vectors
  student = dense()
  s = student.predict(x, verbose=0)
  teachers = {1.0: lambda inputs: inputs[:, :4], 3.0: lambda inputs: 3 * inputs[:, 1:5]}
  # A learning rate of 0: the student stays as it is.
  distiller = compiled(teachers[1.0], student, [SoftTargets(2.0, form="cross_entropy")], keras.optimizers.SGD(0.0))
  for scale, columns in ((1.0, slice(0, 4)), (3.0, slice(1, 5)), (1.0, slice(0, 4))):
    distiller.teacher = teachers[scale]
    t = scale * x[:, columns]
    expected = 4 * references.soft_target_cross_entropy(t, s, 2.0).mean()
    for step in (distiller.train_on_batch, distiller.test_on_batch):
      logs = step(x, y, return_dict=True)
      np.testing.assert_allclose(logs["soft_targets"], expected, rtol=1e-5)
      np.testing.assert_allclose(logs["agreement"], np.mean(t.argmax(1) == s.argmax(1)), rtol=1e-6)
  for run in (distiller.fit, distiller.evaluate):
    distiller.teacher = teachers[3.0]
    logs = run(x, y, batch_size=24, verbose=0, **({} if run == distiller.fit else {"return_dict": True}))
    found = logs.history["soft_targets"][0] if run == distiller.fit else logs["soft_targets"]
    t = 3 * x[:, 1:5]
    np.testing.assert_allclose(found, 4 * references.soft_target_cross_entropy(t, s, 2.0).mean(), rtol=1e-5)


def test_weighted_metrics_are_weighted_and_others_are_not(vectors):
  x, y = vectors
  student = dense()
  correct = student.predict(x, verbose=0).argmax(1) == y
  weights = np.where(correct, 0.25, 2.0).astype(np.float32)
  assert 0 < correct.mean() < 1
  accuracy = keras.metrics.SparseCategoricalAccuracy
  options = {"metrics": [accuracy("plain")], "weighted_metrics": [accuracy("weighted")]}
  distiller = compiled(dense(), student, [SoftTargets(2.0, form="cross_entropy")], keras.optimizers.SGD(0.0), options)
  for logs in (
    distiller.train_on_batch(x, y, sample_weight=weights, return_dict=True),
    distiller.evaluate(x, y, sample_weight=weights, batch_size=10, verbose=0, return_dict=True),
  ):
    np.testing.assert_allclose(logs["plain"], correct.mean(), rtol=1e-6)
    np.testing.assert_allclose(logs["weighted"], np.average(correct, weights=weights), rtol=1e-6)


@pytest.mark.parametrize("as_dict", [True, False], ids=["dict", "list"])
def test_each_output_has_its_own_sample_weight(vectors, as_dict):
  x, y = vectors
  inputs = keras.Input((6,))
  first, second = layers.Dense(4, name="first")(inputs), layers.Dense(4, name="second")(inputs)
  student = keras.Model(inputs, {"first": first, "second": second} if as_dict else [first, second])
  keys = ["first", "second"] if as_dict else [0, 1]

  def structure(values):
    return (
      dict(zip(keys, values, strict=True)) if as_dict else tuple(values)
    )  # Of a list, tf.data would make one tensor.

  def teacher(inputs):
    return structure([3 * inputs[:, :4], -2 * inputs[:, 1:5]])

  outputs = student.predict(x, verbose=0)
  s = [outputs[key] for key in keys]
  t = [3 * x[:, :4], -2 * x[:, 1:5]]
  weights = [np.linspace(0, 2, len(x), dtype=np.float32), np.linspace(1, 0, len(x), dtype=np.float32) ** 2]
  objectives = [SoftTargets(3.0, form="cross_entropy", output=key, name=f"soft{i}") for i, key in enumerate(keys)]
  distiller = Distiller(teacher, student, objectives)
  distiller.compile(keras.optimizers.SGD(0.0), loss=SPARSE, weighted_metrics=[])
  dataset = tf.data.Dataset.from_tensors((x, structure([y, y]), structure(weights)))
  logs = distiller.evaluate(dataset, verbose=0, return_dict=True)
  soft = [
    np.mean(w * 9 * references.soft_target_cross_entropy(a, b, 3.0)) for w, a, b in zip(weights, t, s, strict=True)
  ]
  hard = sum(cross_entropy(b, y, w) for w, b in zip(weights, s, strict=True))
  np.testing.assert_allclose([logs["soft0"], logs["soft1"]], soft, rtol=1e-5)
  np.testing.assert_allclose(logs["hard_loss"], hard, rtol=1e-5)
  np.testing.assert_allclose(logs["loss"], hard + sum(soft), rtol=1e-5)


def test_regularizers_of_connectors_count_and_are_trained(vectors):
  x, y = vectors
  hint = Hint(
    "hidden",
    "hidden",
    weight=0.0,
    connector=layers.Dense(8, use_bias=False, kernel_regularizer=keras.regularizers.L2(7)),
  )

  def network(width):
    return keras.Sequential([keras.Input((6,)), layers.Dense(width, "tanh", name="hidden"), layers.Dense(4)])

  student = network(5)
  hard = cross_entropy(student.predict(x, verbose=0), y)
  distiller = compiled(network(8), student, [hint], keras.optimizers.SGD(0.01))
  (kernel,) = distiller.objectives[0].trainable_variables
  before = kernel.numpy()
  penalty = 7 * np.sum(np.square(np.float64(before)))
  assert penalty > 1
  for step in (distiller.test_on_batch, distiller.train_on_batch):
    np.testing.assert_allclose(step(x, y, return_dict=True)["loss"], hard + penalty, rtol=1e-5)
  # The gradient of the penalty alone: the objective's own weight is 0.
  np.testing.assert_allclose(kernel.numpy(), before * (1 - 0.01 * 2 * 7), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_losses_of_half_precision_outputs_are_computed_in_float32(vectors, dtype):
  x, y = vectors
  student = keras.Sequential([keras.Input((6,)), layers.Dense(4, dtype=f"mixed_{dtype}", name="logits")])
  distiller = compiled(
    lambda inputs: 3 * inputs[:, :4], student, [SoftTargets(2.0, form="cross_entropy")], keras.optimizers.SGD(0.0)
  )
  s = tf.cast(student(x), tf.float32).numpy()  # Rounded to half precision by the student, and by nothing after it.
  hard, soft = cross_entropy(s, y), 4 * references.soft_target_cross_entropy(3 * x[:, :4], s, 2.0).mean()
  for step in (distiller.test_on_batch, distiller.train_on_batch):
    logs = step(x, y, return_dict=True)
    np.testing.assert_allclose(logs["hard_loss"], hard, rtol=2e-6)
    np.testing.assert_allclose(logs["soft_targets"], soft, rtol=2e-6)
    np.testing.assert_allclose(logs["loss"], hard + soft, rtol=2e-6)
