"""Small models and a compiled Distiller, for the tests of this directory."""

import numpy as np
import tf_keras as keras

import tfkd
from tests.losses import references

layers = keras.layers
SPARSE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def dense(classes=4, hidden=8, **kwargs):
  return keras.Sequential(
    [keras.Input((6,)), layers.Dense(hidden, "relu"), layers.Dense(classes, name="logits", **kwargs)], name="dense"
  )


def with_batch_norm(dtype=None):
  return keras.Sequential(
    [
      keras.Input((6,)),
      layers.Dense(8, name="hidden"),
      layers.BatchNormalization(momentum=0.9, name="bn"),
      layers.Dropout(0.5),
      layers.Dense(4, dtype=dtype),
    ]
  )


def compiled(teacher, student, objectives, optimizer=None, compile_options=None, **kwargs):
  distiller = tfkd.Distiller(teacher, student, objectives, **kwargs)
  # A metric given by name would make its variables in the first step, which is traced twice then.
  metrics = [keras.metrics.SparseCategoricalAccuracy("accuracy")]
  options = {"loss": SPARSE, "metrics": metrics, **(compile_options or {})}
  distiller.compile(optimizer or keras.optimizers.SGD(0.1), **options)
  return distiller


def cross_entropy(logits, labels, weights=None):
  one_hot = np.eye(logits.shape[1])[labels]
  losses = references.tempered_cross_entropy(one_hot, logits, 1.0)
  return np.mean(losses if weights is None else losses * weights)
