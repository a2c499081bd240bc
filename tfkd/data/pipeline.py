"""Arrays to `tf.data`: whole batches are gathered, scaled and augmented at once."""

import re

import numpy as np
import tensorflow as tf

from tfkd.data.augment import mixup as mix
from tfkd.data.checks import check_arrays, check_images, check_labels, check_options
from tfkd.storage.fingerprints import assert_same_examples

_LANES = 16  # Examples: a multiple of what any processor computes at once.


def batches(
  inputs, labels, batch_size, *, scale_pixels=False, shuffle_seed=None, first_step=None, every=1, augment=None,
  views=None, side=None, normalize=None, num_classes=None, label_smoothing=0.0, mixup=0.0,
):  # fmt: skip
  """Makes a data set of batches from arrays in memory.

  Values and types are those of the arrays, unless an option below changes them.

  Args:
    inputs: array [n, ...], such as images [n, height, width, channels], or a dict of arrays for a model of several
      inputs; or a tuple of either and further arrays [n, ...], such as the teacher's outputs, which pass unchanged and
      may be nested in tuples and dicts. A memory-mapped array is read batch by batch. Examples are compared with those
      that `tfkd.teachers.CachedTeacher.outputs` were computed from.
    labels: array [n, ...] of any type, or a dict or tuple of such; None for inputs alone, ((inputs,)).
    batch_size: examples of a batch, over all replicas; the last batch may be smaller.
    scale_pixels: divide uint8 images by 255, which gives float32 in [0, 1].
    shuffle_seed: int for another order in every epoch, reproducible; None keeps the order.
    first_step, every: see `rows`: a data set of all epochs, from so many-th batch on.
    augment: function from (images float in [0, 1], draw) to such images, see `tfkd.data.augment`.
    views: of augment, how many changes each example has, which depend on example and view alone; None for new ones
      each time. Shuffled, an epoch shows one view of each example, drawn at random. In order, the data set shows view 0
      of all examples, then view 1, and so on, as `tfkd.teachers.cache` needs them to store the teacher's outputs;
      further arrays are [views * n, ...], in that order. So teacher and student see the same pixels (Beyer et al. 2022,
      arXiv:2106.05237; Shen, Xing 2022, arXiv:2112.01528).
    side: without augment, keep so many pixels of height and width, in the middle; None keeps all.
    normalize: (mean, std) of each channel of float inputs, subtracted and divided by, after scale_pixels; None
      disables it.
    num_classes: convert integer labels to distributions over this many classes; None leaves labels as they are.
    label_smoothing: share of a label that is spread over all classes, in [0, 1) (Szegedy et al. 2016,
      arXiv:1512.00567); needs num_classes.
    mixup: alpha of mixup, 0 for none (Zhang et al. 2018, arXiv:1710.09412): image and label become l * own + (1 - l) *
      another example's of the batch, l ~ Beta(alpha, alpha) for each example; needs num_classes.

  Returns:
    `tf.data.Dataset` of (inputs, labels), or of (inputs,); labels with num_classes are float32
    [batch, ..., num_classes].

  Raises:
    ValueError: there are fewer examples than a batch holds, lengths differ, an option is out of range, lacks what it
      needs or is not for values of this type, or cached outputs are of other inputs than those of the first batch. In
      later batches that is a `tf.errors.InvalidArgumentError`.
  """
  images, others = (inputs[0], inputs[1:]) if isinstance(inputs, tuple) else (inputs, ())
  n = check_arrays(images, others, labels, views)
  check_options(n, others, batch_size, augment, views, mixup)
  check_images(images, scale_pixels=scale_pixels, augment=augment, side=side, normalize=normalize, mixup=mixup)
  check_labels(labels, num_classes, label_smoothing, mixup)
  take_inputs, take_labels, take_others = (tf.nest.map_structure(_taker, part) for part in (images, labels, others))
  # Fingerprints of what the teacher's outputs were computed from, where these were cached.
  stored = {id(f): _constant(f) for a in tf.nest.flatten(others) if (f := getattr(a, "fingerprints", None)) is not None}

  change = scale_pixels or augment or side or normalize is not None

  # An example's index, plus n times its view.
  def gather(indices, seed):
    if views and shuffle_seed is not None:
      indices += n * tf.random.stateless_uniform(tf.shape(indices), seed, 0, views, tf.int64)
    x, y = _taken(take_inputs, indices % n), _taken(take_labels, indices % n)
    if change:
      x = _changed(x, indices, seed, n, scale_pixels, augment, views, side, normalize)
    with tf.control_dependencies([assert_same_examples(x, tf.gather(f, indices), indices) for f in stored.values()]):
      x, y = tf.nest.map_structure(tf.identity, x), _distributions(y, num_classes, label_smoothing)
    if mixup:
      x, y = mix(x, y, seed, mixup)
    x = (x, *_taken(take_others, indices)) if others else x
    return (x,) if labels is None else (x, y)

  total = n * views if views and shuffle_seed is None else n
  if stored and not tf.inside_function():
    _check_first_batch(rows(total, batch_size).take(1).map(gather))
  dataset = rows(total, batch_size, shuffle_seed=shuffle_seed, first_step=first_step, every=every)
  return dataset.map(gather, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def rows(n, batch_size, *, shuffle_seed=None, first_step=None, every=1):
  """The order of examples: which are in which batch is decided by seed, epoch and step alone.

  So a training that was interrupted goes on with the very batches that it would have seen, at no cost.

  Args:
    n: number of examples.
    batch_size: examples of a batch; the last of an epoch may be smaller.
    shuffle_seed: int for another order in every epoch; None keeps the order.
    first_step: None for one epoch; iterated again, another one. An int for all epochs without end, beginning with so
      many-th batch of the training; Keras' fit then needs `steps_per_epoch`.
    every: with first_step, leave out all but every so many-th batch, where as many workers take turns.

  Returns:
    `tf.data.Dataset` of (int64 [batch], seed int64 [2] for what is drawn for the batch).
  """
  steps = -(-n // batch_size)

  def of_epoch(epoch):
    of_order, of_batches = tf.unstack(tf.random.split(tf.stack([shuffle_seed or 0, epoch]), 2))
    order = tf.range(n, dtype=tf.int64)
    if shuffle_seed is not None:
      # An order of random numbers is a random order.
      order = tf.cast(tf.argsort(tf.random.stateless_uniform([n], of_order, None, None, tf.int32)), tf.int64)
    seeds = tf.random.stateless_uniform([steps, 2], of_batches, None, None, tf.int64)
    order, seeds = (tf.data.Dataset.from_tensor_slices(part) for part in (order, seeds))
    return tf.data.Dataset.zip(order.batch(batch_size), seeds)

  if first_step is None:
    epochs = tf.data.Dataset.random(shuffle_seed or 0, rerandomize_each_iteration=True).take(1)
    dataset, cardinality = epochs.flat_map(of_epoch), steps
  else:
    epochs = tf.data.Dataset.range(first_step // steps, tf.int64.max)
    dataset, cardinality = epochs.flat_map(of_epoch).skip(first_step % steps), tf.data.INFINITE_CARDINALITY
    dataset = dataset.shard(every, 0)
  return dataset.apply(tf.data.experimental.assert_cardinality(cardinality))


def _check_first_batch(dataset):
  """Reads the first batch.

  Raises:
    ValueError: its cached outputs are of other inputs.
  """
  try:
    next(iter(dataset))
  except tf.errors.InvalidArgumentError as error:
    message = re.search(r"\[(inputs and cached .*?)\] \[(.*?)\]", error.message)
    if not message:
      raise
    raise ValueError(f"{' '.join(message.groups())}.") from None


def _changed(images, indices, seed, n, scale_pixels, augment, views, side, normalize):
  if scale_pixels:
    images = tf.cast(images, tf.float32) / 255
  if augment:
    images = _augmented(images, augment, indices, n, views, seed)
  elif side:
    images = _middle(images, side)
  if normalize is not None:
    mean, std = (np.asarray(part, images.dtype.as_numpy_dtype) for part in normalize)
    images = (images - mean) / std
  return images


def _distributions(labels, num_classes, label_smoothing):
  if num_classes is None:
    return labels
  return (1 - label_smoothing) * tf.one_hot(tf.cast(labels, tf.int64), num_classes) + label_smoothing / num_classes


def _augmented(images, augment, indices, n, views, seed):
  if not views:
    return augment(images, _fresh_draw(tf.shape(indices)[0], seed))
  # A view has the same bits in batches of every size: the last few of a batch would go through other instructions of
  # the processor than those that are computed several at a time.
  count = tf.shape(indices)[0]
  padded = tf.range(-(-count // _LANES) * _LANES) % count
  images, indices = tf.gather(images, padded), tf.gather(indices, padded)
  return augment(images, _fixed_draw(indices, n, views))[:count]


def _fresh_draw(n, seed):
  """New uniform numbers for each batch."""
  return lambda count: tf.random.stateless_uniform([n, count], seed)


def _fixed_draw(indices, n, views):
  """Uniform numbers that depend on example and view alone: a view has them however many others there are."""

  def draw(count):
    table = [np.random.default_rng((count, view)).random((n, count), np.float32) for view in range(views)]
    return tf.gather(_constant(np.concatenate(table)), indices)

  return draw


def _constant(array):
  """A tensor beside the graph that is being traced, not a number of it, wherever this is called."""
  with tf.init_scope(), tf.device("CPU"):
    return tf.convert_to_tensor(array)


def _taken(takers, indices):
  return tf.nest.map_structure(lambda take: take(indices), takers)


def _taker(array):
  """A function from indices to rows of an array."""
  if array is None:
    return lambda indices: ()
  if not isinstance(array, np.memmap):
    tensor = _constant(array)
    return lambda indices: tf.gather(tensor, indices)

  def take(indices):
    rows = tf.numpy_function(lambda i: np.asarray(array[i]), [indices], tf.as_dtype(array.dtype))
    return tf.ensure_shape(rows, [None, *array.shape[1:]])

  return take


def _middle(images, side):
  top, left = (images.shape[1] - side) // 2, (images.shape[2] - side) // 2
  return images[:, top : top + side, left : left + side]
