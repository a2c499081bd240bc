"""Batches from arrays in memory: whole batches are gathered and transformed at once."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfkd.data.checks import check_arrays, check_batches
from tfkd.data.transforms import Augment, Batch, Examples, MixUp, ScalePixels, Transform, constant
from tfkd.storage.fingerprints import assert_same_examples


def batches(
  inputs: Any,
  labels: Any,
  batch_size: int,
  *,
  sample_weight: Any = None,
  scale_pixels: bool = False,
  transforms: Sequence[Transform] = (),
  shuffle_seed: int | None = None,
  first_step: int | None = None,
  stride: int = 1,
) -> tf.data.Dataset:
  """Makes batches from arrays in memory.

  Values and types are those of the arrays, unless scale_pixels or a transform changes them.

  Args:
    inputs: array [n, ...], such as images [n, height, width, channels], or a dict of arrays for a model of several
      inputs, or a tuple of arrays for one that reads them in order, given as ((first, second),); or a tuple of any of
      these and further arrays [n, ...], such as the teacher's outputs, which pass unchanged and
      may be nested in tuples and dicts. A memory-mapped array is read batch by batch. Where further arrays are
      `tfkd.teachers.CachedTeacher.outputs`, each batch is compared with the examples that these were computed from.
    labels: array [n, ...] of any type, or a dict or tuple of arrays; None gives batches of inputs alone, ((inputs,)).
    batch_size: examples per batch, over all replicas; the last batch may be smaller.
    sample_weight: array [n, ...], or a dict or tuple of arrays, as `fit` reads them; None for none.
    scale_pixels: divide uint8 images by 255, which gives float32 in [0, 1], before the transforms.
    transforms: applied in this order, such as [Augment(padded_crop), Normalize(IMAGENET), OneHot(10)]; see
      `tfkd.data.transforms`. With augmentation views in order, further arrays are [views * n, ...], in that order.
    shuffle_seed: seed of a new order in every epoch; None keeps the order of the arrays.
    first_step, stride: see `index_batches`: batches of all epochs, from this step on.

  Returns:
    `tf.data.Dataset` of (inputs, labels), (inputs, labels, sample_weight), or (inputs,).

  Raises:
    ValueError: batch_size is larger than n, lengths differ, arrays are not of numbers, booleans or strings, a transform
      is not made for such inputs or labels, further arrays are joined to inputs that change in every epoch, or cached
      outputs belong to other inputs than those of the first batch. In later batches that is a
      `tf.errors.InvalidArgumentError`.
  """
  images, others = (inputs[0], inputs[1:]) if isinstance(inputs, tuple) else (inputs, ())
  transforms = [*([ScalePixels()] if scale_pixels else []), *transforms]
  views = _views(transforms)
  n = check_arrays(images, others, labels, sample_weight, views)
  check_batches(n, batch_size, others, transforms)
  if sample_weight is not None and any(isinstance(transform, MixUp) for transform in transforms):
    raise ValueError("MixUp mixes examples, whose sample_weight may differ: leave one of the two out.")
  examples = Examples(images, labels, n)
  for transform in transforms:
    examples = transform.check(examples)
  parts = (images, labels, others, sample_weight)
  take_inputs, take_labels, take_others, take_weights = (tf.nest.map_structure(_taker, part) for part in parts)
  # Fingerprints of the inputs that cached outputs were computed from.
  stored = {id(f): _taker(f) for a in tf.nest.flatten(others) if (f := getattr(a, "fingerprints", None)) is not None}

  def gather(indices, seed):
    if views and shuffle_seed is not None:
      indices += n * tf.random.stateless_uniform(tf.shape(indices), seed, 0, views, tf.int64)
    batch = Batch(_taken(take_inputs, indices % n), _taken(take_labels, indices % n), indices, seed, n)
    for transform in transforms:
      batch = transform(batch)
    x = batch.inputs
    with tf.control_dependencies([assert_same_examples(x, take(indices), indices) for take in stored.values()]):
      x = tf.nest.map_structure(tf.identity, x)
    x = (x, *_taken(take_others, indices)) if others else x
    weights = () if sample_weight is None else (_taken(take_weights, indices % n),)
    return (x,) if labels is None else (x, batch.labels, *weights)

  total = n * views if views and shuffle_seed is None else n
  if stored and not tf.inside_function():
    _check_first_batch(index_batches(total, batch_size).take(1).map(gather))
  order = index_batches(total, batch_size, shuffle_seed=shuffle_seed, first_step=first_step, stride=stride)
  options = tf.data.Options()
  # The thread that tunes buffer sizes may miss the end of an iterator, whose deletion then waits for 5 seconds or more.
  # Without it, AUTOTUNE means one call per core and a buffer that grows when it is found empty.
  options.autotune.enabled = False
  return order.map(gather, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE).with_options(options)


def index_batches(
  n: int, batch_size: int, *, shuffle_seed: int | None = None, first_step: int | None = None, stride: int = 1
) -> tf.data.Dataset:
  """Makes batches of example indices, determined by seed, epoch and step alone.

  A resumed training therefore continues with the batches that an uninterrupted one would see, at no cost.

  Args:
    n: number of examples.
    batch_size: examples per batch; the last batch of an epoch may be smaller.
    shuffle_seed: seed of a new order in every epoch; None keeps the order.
    first_step: None for one epoch, in a new order each time it is iterated. An int for an endless data set of all
      epochs that begins at this step of the training; Keras' `fit` then needs `steps_per_epoch`.
    stride: with first_step, keep every stride-th batch, so that several workers take turns.

  Returns:
    `tf.data.Dataset` of (indices int64 [batch], seed int64 [2] for random numbers of the batch).
  """
  steps = -(-n // batch_size)

  def epoch_batches(epoch):
    order_seed, batch_seed = tf.unstack(tf.random.split(tf.stack([shuffle_seed or 0, epoch]), 2))
    order = tf.range(n, dtype=tf.int64)
    if shuffle_seed is not None:
      # Sorting random numbers gives a random permutation.
      order = tf.cast(tf.argsort(_random_integers([n], order_seed, tf.int32)), tf.int64)
    seeds = _random_integers([steps, 2], batch_seed, tf.int64)
    order, seeds = (tf.data.Dataset.from_tensor_slices(part) for part in (order, seeds))
    return tf.data.Dataset.zip(order.batch(batch_size), seeds)

  if first_step is None:
    epochs = tf.data.Dataset.random(shuffle_seed or 0, rerandomize_each_iteration=True).take(1)
    dataset, cardinality = epochs.flat_map(epoch_batches), steps
  else:
    epochs = tf.data.Dataset.range(first_step // steps, tf.int64.max)
    dataset, cardinality = epochs.flat_map(epoch_batches).skip(first_step % steps), tf.data.INFINITE_CARDINALITY
    dataset = dataset.shard(stride, 0)
  return dataset.apply(tf.data.experimental.assert_cardinality(cardinality))


def _views(transforms):
  """Returns the number of augmentation views, or None.

  Raises:
    ValueError: there are several `Augment`.
  """
  augments = [transform for transform in transforms if isinstance(transform, Augment)]
  if len(augments) > 1:
    raise ValueError(f"transforms may have one Augment; got {len(augments)}: compose their functions into one.")
  return augments[0].views if augments else None


def _check_first_batch(dataset):
  """Reads the first batch.

  Raises:
    ValueError: its cached outputs belong to other inputs, or are damaged.
  """
  try:
    next(iter(dataset))
  except tf.errors.InvalidArgumentError as error:
    message = re.search(r"\[(inputs and cached .*?)\] \[(.*?)\]", error.message)
    if message:
      raise ValueError(f"{' '.join(message.groups())}.") from None
    damaged = re.search(r"^ValueError: (.* has changed since .*)$", error.message, re.MULTILINE)
    if damaged:
      raise ValueError(damaged[1]) from None
    raise


def _taken(takers, indices):
  return tf.nest.map_structure(lambda take: take(indices), takers)


def _taker(array):
  """Returns a function from indices to examples of an array."""
  if array is None:
    return lambda indices: ()
  if not isinstance(array, np.memmap) and not getattr(array, "is_mapped", False):
    tensor = constant(array)
    return lambda indices: tf.gather(tensor, indices)

  def take(indices):
    examples = tf.numpy_function(lambda i: np.asarray(array[i]), [indices], tf.as_dtype(array.dtype))
    return tf.ensure_shape(examples, [None, *array.shape[1:]])

  return take


def _random_integers(shape, seed, dtype):
  """Draws from all values of an integer type."""
  return tf.random.stateless_uniform(shape, seed, None, None, dtype)  # pyright: ignore[reportArgumentType]
