"""Fine-tuning of a last layer alone, on features that are computed once."""

import numpy as np
import tensorflow as tf
import tf_keras as keras

from tfkd import models
from tfkd.data import rows
from tfkd.training._fit import fit


def fit_head(model, train, validation, *, optimizer, epochs, batch_size, **places):
  """Trains the last layer of a network of `tfkd.models`; every other weight stays as it is, bit by bit.

  The network runs once over both data sets. An epoch then costs a matrix product, whatever the network. Call it in the
  model's `strategy.scope()`, if it has one.

  Args:
    model: with layers `embedding` and `logits`; it may be `models.resized`.
    train, validation: `tf.data` data sets of (images, labels int [batch]), in a fixed order.
    optimizer: for the layer.
    epochs: number of epochs.
    batch_size: of the layer's training.
    **places: logdir, folder and so on, see `fit`.

  Returns:
    History and seconds of `fit`: "accuracy", "val_accuracy" and so on are of the whole model.
  """
  network = models.network_of(model)
  logits = network.get_layer("logits")
  body = keras.Model(network.input, network.get_layer("embedding").output)
  if network is not model:
    # The same resize and normalisation before the network's body.
    inputs = keras.Input(model.input_shape[1:])
    x = inputs
    for layer in model.layers[1:-1]:
      x = layer(x)
    body = keras.Model(inputs, body(x))
  data = []
  for dataset in (train, validation):
    features = body.predict(dataset, verbose=0).astype(np.float32)
    labels = np.concatenate([y for y in dataset.map(lambda x, y: y).as_numpy_iterator()])
    data.append((features, labels))
  head = keras.Sequential([keras.Input(logits.input_shape[1:]), keras.layers.Dense(logits.units, dtype="float32")])
  head.layers[-1].set_weights(logits.get_weights())
  head.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True), ["accuracy"])
  features, labels = (tf.constant(array) for array in data[0])
  n = len(data[0][1])

  def shuffled(first_step):
    order = rows(n, batch_size, shuffle_seed=0, first_step=first_step)
    return order.map(lambda indices, _: (tf.gather(features, indices), tf.gather(labels, indices)))

  in_order = tf.data.Dataset.from_tensor_slices(data[1]).batch(batch_size)
  history, seconds = fit(head, head, shuffled, in_order, epochs=epochs, steps=-(-n // batch_size), **places)
  logits.set_weights(head.layers[-1].get_weights())
  return history, seconds
