"""Training of the last layer alone, on features that are computed once."""

from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras

from tfkd import models
from tfkd.data import index_batches
from tfkd.training._fit import History, fit


def fit_head(
  model: keras.Model,
  train: tf.data.Dataset,
  validation: tf.data.Dataset,
  *,
  optimizer: keras.optimizers.Optimizer,
  epochs: int,
  batch_size: int,
  **options: Any,
) -> tuple[History, float]:
  """Trains the last layer of a network of `tfkd.models`; every other weight stays bit-identical.

  The network runs once over both data sets. An epoch then costs a matrix product, whatever the network. A distributed
  model needs the call in its `strategy.scope()`.

  Args:
    model: network with layers `embedding` and `logits`, or such a network in `models.resized`.
    train, validation: batches of (images, int labels [batch]) in a fixed order.
    optimizer: for the last layer.
    epochs: number of epochs.
    batch_size: examples per step of the last layer.
    **options: checkpoint_dir, log_dir and the other options of `fit`.

  Returns:
    history and seconds of `fit`. The metrics are those of the whole model.
  """
  logits = models.network_of(model).get_layer("logits")
  body = _body(model)
  train_features, validation_features = (_features(body, dataset) for dataset in (train, validation))
  head = keras.Sequential([keras.Input(logits.input_shape[1:]), keras.layers.Dense(logits.units, dtype="float32")])
  head.layers[-1].set_weights(logits.get_weights())
  head.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True), ["accuracy"])
  features, labels = (tf.constant(array) for array in train_features)
  n = len(train_features[1])

  def shuffled(first_step):
    order = index_batches(n, batch_size, shuffle_seed=0, first_step=first_step)
    return order.map(lambda indices, _: (tf.gather(features, indices), tf.gather(labels, indices)))

  in_order = tf.data.Dataset.from_tensor_slices(validation_features).batch(batch_size)
  history, seconds = fit(head, shuffled, in_order, epochs=epochs, steps_per_epoch=-(-n // batch_size), **options)
  logits.set_weights(head.layers[-1].get_weights())
  return history, seconds


def _body(model):
  """The model from its inputs to its embedding, with the resizing and normalization of `models.resized`."""
  network = models.network_of(model)
  body = keras.Model(network.input, network.get_layer("embedding").output)
  if network is model:
    return body
  inputs = keras.Input(model.input_shape[1:])
  x = inputs
  for layer in model.layers[1:-1]:
    x = layer(x)
  return keras.Model(inputs, body(x))


def _features(body, dataset):
  features = body.predict(dataset, verbose=0).astype(np.float32)
  labels = np.concatenate([y for y in dataset.map(lambda x, y: y).as_numpy_iterator()])
  return features, labels
