"""One replica, two and four take the same steps, for the same global batch."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import tfkd
from tfkd import quantization
from tfkd.models import svhn_cnn
from tfkd.objectives import SoftTargets

layers = keras.layers


def _student():
  return keras.Sequential([keras.Input((6,)), layers.Dense(8, "tanh", kernel_regularizer="l2"), layers.Dense(4)])


def _fit(strategy, weights, vectors, loss, **fit):
  x, y = vectors
  with strategy.scope():
    student = _student()
    student.set_weights(weights)
    distiller = tfkd.Distiller(
      lambda inputs: 3 * inputs[:, :4], student, [SoftTargets(5.0, weight=0.7)], hard_loss_weight=0.3
    )
    distiller.compile(keras.optimizers.SGD(0.05), loss=loss, metrics=["accuracy"])
  history = distiller.fit(x, y, shuffle=False, epochs=3, verbose=0, **fit).history
  return student.get_weights(), history


@pytest.mark.parametrize("batch_size", [8, 10, 23], ids=["even", "uneven_last_batch", "last_batch_of_one"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("loss", ["string", "instance"])
def test_two_replicas_take_the_same_steps_as_one(two_replicas, vectors, batch_size, weighted, loss):
  if loss == "string":
    # A function of probabilities by name; the point is Keras' other path through its loss container.
    loss = "mse"
    vectors = vectors[0], np.eye(4, dtype=np.float32)[vectors[1]]
  else:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
  fit = {"batch_size": batch_size}
  if weighted:
    fit["sample_weight"] = np.linspace(0.1, 2, len(vectors[0])).astype(np.float32)
  weights = _student().get_weights()
  one, one_logs = _fit(tf.distribute.get_strategy(), weights, vectors, loss, **fit)
  two, two_logs = _fit(two_replicas, weights, vectors, loss, **fit)
  assert max(np.abs(a - b).max() for a, b in zip(one, weights, strict=True)) > 1e-2
  for a, b in zip(one, two, strict=True):
    np.testing.assert_allclose(a, b, atol=1e-6)
  for name in ("loss", "hard_loss", "soft_targets", "agreement"):
    np.testing.assert_allclose(one_logs[name], two_logs[name], rtol=1e-5)


def test_a_quantized_student_trains_on_two_replicas(two_replicas, images):
  x, y = images
  with two_replicas.scope():
    student = quantization.quantize(svhn_cnn(width=4), "w8a8", calibration_data=x)
    distiller = tfkd.Distiller(svhn_cnn(width=4), student, [SoftTargets(5.0)])
    distiller.compile("adam", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
  losses = distiller.fit(x, y, batch_size=16, epochs=3, verbose=0).history["loss"]
  assert np.isfinite(losses).all() and losses[-1] < losses[0]


RNG = np.random.default_rng(0)
IMAGES, LABELS = RNG.uniform(size=(52, 8, 8, 3)).astype(np.float32), RNG.integers(0, 4, 52)
BATCH, EPOCHS = 12, 4  # Twenty steps; the last of an epoch has four examples.


def _without_batch_norm(width):
  inputs = keras.Input((8, 8, 3))
  x = layers.Conv2D(width, 3, name="conv")(inputs)
  x = layers.Conv2D(width, 3, strides=2, name="conv2")(layers.ReLU(name="relu")(x))
  return keras.Model(inputs, layers.Dense(4, name="logits")(layers.Flatten()(layers.ReLU(name="relu2")(x))))


def _losses(strategy, case, folder):
  """The loss of every step, and the weights at the end."""
  keras.utils.set_random_seed(0)
  teacher, images = _without_batch_norm(8), IMAGES
  weights = np.linspace(0.2, 2, 52).astype(np.float32) if case == "sample weights" else None
  if case == "cached teacher":
    in_order = tf.data.Dataset.from_tensor_slices(IMAGES).batch(10)
    teacher = tfkd.teachers.cache(teacher, in_order, str(folder / "cache"))
    images = (IMAGES, np.array(teacher.outputs))
  with strategy.scope():
    student = _without_batch_norm(4)
    if case[0] == "w":
      student = quantization.quantize(student, case, calibration_data=IMAGES)
    objectives = [SoftTargets(4.0)]
    if case == "hints":
      objectives.append(tfkd.objectives.Hint("relu2", "relu2", connector="conv1x1"))
    distiller = tfkd.Distiller(teacher, student, objectives)
    clip = {"global_clipnorm": 0.05} if case == "clipped" else {}
    distiller.compile(
      keras.optimizers.SGD(0.02, momentum=0.9, **clip), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
  losses = []
  record = keras.callbacks.LambdaCallback(on_train_batch_end=lambda step, logs: losses.append(logs["loss"]))
  elements = (images, LABELS) if weights is None else (images, LABELS, weights)
  dataset = tf.data.Dataset.from_tensor_slices(elements).batch(BATCH)
  distiller.fit(dataset, epochs=EPOCHS, verbose=0, callbacks=[record])
  return losses, distiller.get_weights()


@pytest.mark.parametrize(
  "case", ["soft targets", "hints", "clipped", "sample weights", "cached teacher", "w8a8", "w4a8", "w2a1"]
)
def test_two_and_four_replicas_have_the_loss_curve_of_one(tmp_path, case):
  losses, weights = _losses(tf.distribute.get_strategy(), case, tmp_path)
  assert len(losses) == 20 and losses[0] != losses[-1]
  for replicas in (2, 4):
    devices = [f"/cpu:{i}" for i in range(replicas)]
    strategy = tf.distribute.MirroredStrategy(devices, cross_device_ops=tf.distribute.ReductionToOneDevice())
    found, of_replicas = _losses(strategy, case, tmp_path)
    np.testing.assert_allclose(found, losses, rtol=1e-5)
    for a, b in zip(weights, of_replicas, strict=True):
      np.testing.assert_allclose(a, b, atol=1e-4)
