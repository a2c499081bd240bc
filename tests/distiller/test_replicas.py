"""One replica, two and four take the same steps for the same global batch."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import tfkd
from tests.distiller.small import SPARSE
from tests.objectives.rows import cnn
from tfkd import quantization
from tfkd.objectives import SoftTargets

layers = keras.layers
BATCH_SIZES = (8, 10, 23)  # Even; an uneven last batch; a last batch of one example.


def _strategy(replicas):
  if replicas == 1:
    return tf.distribute.get_strategy()
  devices = [f"/cpu:{i}" for i in range(replicas)]
  return tf.distribute.MirroredStrategy(devices, cross_device_ops=tf.distribute.ReductionToOneDevice())


def _fits(replicas, vectors, loss):
  """Weights and logs by (batch size, whether samples are weighted); each fit begins with the same weights."""
  x, y = vectors
  sample_weight = np.linspace(0.1, 2, len(x)).astype(np.float32)
  keras.utils.set_random_seed(0)
  with _strategy(replicas).scope():
    student = keras.Sequential([keras.Input((6,)), layers.Dense(8, "tanh", kernel_regularizer="l2"), layers.Dense(4)])
    distiller = tfkd.Distiller(
      lambda inputs: 3 * inputs[:, :4], student, [SoftTargets(5.0, weight=0.7)], hard_loss_weight=0.3
    )
    metric = "accuracy" if loss == "mse" else keras.metrics.SparseCategoricalAccuracy("accuracy")
    distiller.compile(keras.optimizers.SGD(0.05), loss=loss, metrics=[metric], run_eagerly=replicas == 1)
  start, found = student.get_weights(), {}
  for weighted, batch_size in itertools.product((False, True), BATCH_SIZES):
    student.set_weights(start)
    dataset = tf.data.Dataset.from_tensor_slices((x, y, sample_weight) if weighted else (x, y)).batch(batch_size)
    logs = distiller.fit(dataset, epochs=2, verbose=0).history
    found[batch_size, weighted] = student.get_weights(), logs
    assert max(np.abs(a - b).max() for a, b in zip(start, student.get_weights(), strict=True)) > 1e-2
  return found


@pytest.mark.parametrize("loss", ["string", "instance"])
def test_two_replicas_take_the_same_steps_as_one(vectors, loss):
  if loss == "string":  # Keras takes another path through its loss container.
    vectors, loss = (vectors[0], np.eye(4, dtype=np.float32)[vectors[1]]), "mse"
  else:
    loss = SPARSE
  one, two = (_fits(replicas, vectors, loss) for replicas in (1, 2))
  for case, (weights, logs) in one.items():
    for a, b in zip(weights, two[case][0], strict=True):
      np.testing.assert_allclose(a, b, atol=1e-6, err_msg=str(case))
    for name in ("loss", "hard_loss", "soft_targets", "agreement"):
      np.testing.assert_allclose(logs[name], two[case][1][name], rtol=1e-5, err_msg=f"{name} of {case}")


RNG = np.random.default_rng(0)
IMAGES, LABELS = RNG.uniform(size=(52, 8, 8, 3)).astype(np.float32), RNG.integers(0, 4, 52)
BATCH, EPOCHS = 12, 4  # Twenty steps; the last of an epoch has four examples.


@pytest.mark.parametrize("scheme", ["w8a8", "w2a1", "w4a8-lsq", "w2a2-lsq"])
def test_a_quantized_student_trains_on_two_replicas(two_replicas, scheme):
  images = IMAGES[:16] * (LABELS[:16, None, None, None] + 1) / 4
  with two_replicas.scope():
    student = quantization.quantize(cnn(4, "student"), scheme, calibration_data=images)
    distiller = tfkd.Distiller(cnn(4, "teacher"), student, [SoftTargets(5.0)])
    distiller.compile(keras.optimizers.Adam(0.01), loss=SPARSE)
  losses = distiller.fit(images, LABELS[:16], batch_size=16, epochs=6, verbose=0).history["loss"]
  assert np.isfinite(losses).all() and losses[-1] < losses[0]


def _without_batch_norm(width):
  inputs = keras.Input((8, 8, 3))
  x = layers.Conv2D(width, 3, name="conv")(inputs)
  x = layers.Conv2D(width, 3, strides=2, name="conv2")(layers.ReLU(name="relu")(x))
  return keras.Model(inputs, layers.Dense(4, name="logits")(layers.Flatten()(layers.ReLU(name="relu2")(x))))


def _losses(replicas, case, directory):
  """The loss of every step, and the weights at the end."""
  keras.utils.set_random_seed(0)
  teacher, images = _without_batch_norm(8), IMAGES
  weights = np.linspace(0.2, 2, 52).astype(np.float32) if "weighted" in case else None
  if "cached" in case:
    in_order = tf.data.Dataset.from_tensor_slices(IMAGES).batch(10)
    teacher = tfkd.teachers.cache(teacher, in_order, str(directory / "cache"))
    images = (IMAGES, np.array(teacher.outputs))
  with _strategy(replicas).scope():
    student = _without_batch_norm(4)
    if case[0] == "w":
      student = quantization.quantize(student, case, calibration_data=IMAGES)
    objectives = [SoftTargets(4.0)]
    if case == "hints":
      objectives.append(tfkd.objectives.Hint("relu2", "relu2", connector="conv1x1"))
    distiller = tfkd.Distiller(teacher, student, objectives)
    clip = {"global_clipnorm": 0.05} if "clipped" in case else {}
    # Steps of a small float network take less time than their trace.
    run_eagerly = replicas == 1 and case[0] != "w"
    distiller.compile(keras.optimizers.SGD(0.02, momentum=0.9, **clip), SPARSE, run_eagerly=run_eagerly)
  losses = []
  record = keras.callbacks.LambdaCallback(on_train_batch_end=lambda step, logs: losses.append(logs["loss"]))
  elements = (images, LABELS) if weights is None else (images, LABELS, weights)
  dataset = tf.data.Dataset.from_tensor_slices(elements).batch(BATCH)
  distiller.fit(dataset, epochs=EPOCHS, verbose=0, callbacks=[record])
  return losses, distiller.get_weights()


@pytest.mark.parametrize("replicas", [2, pytest.param(4, marks=pytest.mark.end_to_end)])
@pytest.mark.parametrize("case", ["hints", "clipped, weighted and cached", "w8a8", "w4a8", "w2a1"])
def test_replicas_have_the_loss_curve_of_one(tmp_path, case, replicas):
  losses, weights = _losses(1, case, tmp_path)
  found, of_replicas = _losses(replicas, case, tmp_path)
  assert len(losses) == 20 and losses[0] != losses[-1]
  np.testing.assert_allclose(found, losses, rtol=1e-5)
  for a, b in zip(weights, of_replicas, strict=True):
    np.testing.assert_allclose(a, b, atol=1e-4)
