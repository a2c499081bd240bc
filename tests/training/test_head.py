"""Head-only fine-tuning: the last layer learns, and nothing else changes by a bit."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from tfkd import models
from tfkd.preprocessing import Preprocessing
from tfkd.training import fit_head

RNG = np.random.default_rng(0)
LABELS = np.arange(48) % 3
# Classes of different colour.
IMAGES = (RNG.uniform(size=(48, 16, 16, 3)) * 0.5 + 0.5 * np.eye(3)[LABELS][:, None, None]).astype(np.float32)


@pytest.fixture(params=["vit", "resnet", "resized"])
def model(request):
  if request.param == "resnet":
    return models.resnet18(3, (16, 16, 3), width=4)
  if request.param == "vit":
    return models.vit(3, (16, 16, 3), 8, 64, 2)
  return models.resized(models.vit(3, (24, 24, 3), 8, 64, 2), (16, 16, 3), Preprocessing(mean=0.5, std=0.5))


def test_only_the_head_is_trained(model, tmp_path):
  dataset = tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)).batch(10)
  calls = []
  counted = dataset.map(lambda x, y: (tf.numpy_function(lambda a: calls.append(1) or a, [x], tf.float32), y))
  counted = counted.map(lambda x, y: (tf.ensure_shape(x, [None, 16, 16, 3]), y))
  head = models.network_of(model).get_layer("logits")
  before = {v.name: v.numpy() for v in model.variables}
  history, _ = fit_head(
    model, counted, dataset, optimizer=keras.optimizers.Adam(0.05), epochs=20, batch_size=12,
    log_dir=tmp_path / "logs", checkpoint_dir=tmp_path / "head",
  )  # fmt: skip
  of_head = {v.name for v in head.variables}
  for variable in model.variables:
    same = (variable.numpy() == before[variable.name]).all()
    assert same != (variable.name in of_head), variable.name
  assert history["accuracy"][-1] > history["accuracy"][0] + 0.1
  logits = model.predict(IMAGES, verbose=0)
  assert np.mean(logits.argmax(axis=1) == LABELS) == pytest.approx(history["val_accuracy"][-1])
  loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(LABELS, logits)
  assert float(loss) == pytest.approx(history["val_loss"][-1], rel=1e-4)
  # The features of an image were computed once: five batches, and five for the labels.
  assert len(calls) == 10


def test_head_on_two_replicas_with_16_bit_features(two_replicas, tmp_path):
  policy = keras.mixed_precision.global_policy()
  keras.mixed_precision.set_global_policy("mixed_bfloat16")
  try:
    with two_replicas.scope():
      model = models.vit(3, (16, 16, 3), 8, 64, 2)
  finally:
    keras.mixed_precision.set_global_policy(policy)
  dataset = tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)).batch(10)
  with two_replicas.scope():
    history, _ = fit_head(
      model, dataset, dataset, optimizer=keras.optimizers.Adam(0.01), epochs=2, batch_size=12,
      log_dir=tmp_path / "logs", checkpoint_dir=tmp_path / "head",
    )  # fmt: skip
  assert np.isfinite(history["val_loss"]).all() and history["loss"][1] < history["loss"][0]


@pytest.mark.end_to_end
def test_head_of_vit_b16_at_full_size(tmp_path):
  model = models.build("vit_base16@224", 10, (32, 32, 3))
  assert model.count_params() == 85_798_656 + 10 * 768 + 10
  images = RNG.uniform(size=(2, 32, 32, 3)).astype(np.float32)
  dataset = tf.data.Dataset.from_tensor_slices((images, np.arange(2))).batch(2)
  history, _ = fit_head(
    model, dataset, dataset, optimizer=keras.optimizers.SGD(1e-3), epochs=2, batch_size=2,
    log_dir=tmp_path / "logs", checkpoint_dir=tmp_path / "head",
  )  # fmt: skip
  assert history["loss"][1] < history["loss"][0]
