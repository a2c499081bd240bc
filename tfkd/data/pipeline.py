"""Arrays to `tf.data`: whole batches are gathered, augmented and scaled at once."""

import numpy as np
import tensorflow as tf

from tfkd.data.augment import mixup as mix


def batches(
  inputs, labels, batch_size, *, shuffle_seed=None, first_step=None, every=1, augment=None, views=None,
  side=None, normalize=None, num_classes=None, label_smoothing=0.0, mixup=0.0,
):  # fmt: skip
  """Makes a data set of batches from arrays in memory.

  Args:
    inputs: images uint8 [n, height, width, channels], or a tuple of them and further arrays [n, ...], such as the
      teacher's outputs, which pass unchanged; they may be nested in tuples and dicts. A memory-mapped array is read
      batch by batch.
    labels: int [n].
    batch_size: examples of a batch, over all replicas; the last batch may be smaller.
    shuffle_seed: int for another order in every epoch, reproducible; None keeps the order.
    first_step, every: see `rows`: a data set of all epochs, from so many-th batch on.
    augment: function from (images float in [0, 1], draw) to such images, see `tfkd.data.augment`.
    views: of augment, how many changes each example has, which depend on example and view alone; None for new ones
      each time. Shuffled, an epoch shows one view of each example, drawn at random. In order, the data set shows view 0
      of all examples, then view 1, and so on, as `tfkd.teachers.cache` needs them to keep what the teacher answers;
      further arrays are [views * n, ...], in that order. So teacher and student see the same pixels (Beyer et al. 2022,
      arXiv:2106.05237; Shen, Xing 2022, arXiv:2112.01528).
    side: without augment, keep so many pixels of height and width, in the middle; None keeps all.
    normalize: (mean, standard deviation) of each channel, taken off and divided by; None leaves [0, 1].
    num_classes: give each label as a distribution over so many classes; None gives it as it is.
    label_smoothing: share of a label that is spread over all classes, in [0, 1) (Szegedy et al. 2016,
      arXiv:1512.00567); needs num_classes.
    mixup: alpha of mixup, 0 for none (Zhang et al. 2018, arXiv:1710.09412): image and label become l * own + (1 - l) *
      another example's of the batch, l ~ Beta(alpha, alpha) for each example; needs num_classes.

  Returns:
    `tf.data.Dataset` of (inputs, labels), images as float32 in [0, 1] or normalised; labels as given, or float32
    [batch, num_classes].

  Raises:
    ValueError: there are fewer examples than a batch holds, lengths differ, or an option is out of range or lacks what
      it needs.
  """
  images, others = (inputs[0], inputs[1:]) if isinstance(inputs, tuple) else (inputs, ())
  n = len(labels)
  _check(len(images), n, tf.nest.flatten(others), batch_size, augment, views, num_classes, label_smoothing, mixup)
  take_images, take_label = _taker(images), _taker(labels)
  take_others = tf.nest.map_structure(_taker, others)

  # An example's index, plus n times its view.
  def gather(indices, seed):
    if views and shuffle_seed is not None:
      indices += n * tf.random.stateless_uniform(tf.shape(indices), seed, 0, views, tf.int64)
    examples = indices % n
    x, y = take_images(examples), take_label(examples)
    x = tf.cast(x, tf.float32) / 255
    if augment:
      x = augment(x, _fixed_draw(indices, n, views) if views else _fresh_draw(tf.shape(indices)[0], seed))
    elif side:
      x = _middle(x, side)
    if normalize:
      mean, deviation = normalize
      x = (x - mean) / deviation
    if num_classes is not None:
      y = (1 - label_smoothing) * tf.one_hot(y, num_classes) + label_smoothing / num_classes
    if mixup:
      x, y = mix(x, y, seed, mixup)
    return ((x, *tf.nest.map_structure(lambda take: take(indices), take_others)) if others else x), y

  total = n * views if views and shuffle_seed is None else n
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


def _taker(array):
  """A function from indices to rows of an array."""
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


def _check(n, labels, others, batch_size, augment, views, num_classes, label_smoothing, mixup):
  if n != labels:
    raise ValueError(f"images and labels must have one length; got {n} and {labels}.")
  if not 1 <= batch_size <= n:
    raise ValueError(f"batch_size must be between 1 and the number of examples, {n}; got {batch_size}.")
  if views is not None and not (isinstance(views, int) and views > 0 and augment):
    raise ValueError(f"views must be a whole number > 0, of an augment; got {views}.")
  if others and mixup or others and augment and not views:
    raise ValueError(
      "changed images do not belong to outputs computed before: use no mixup with them, and no augment without views."
    )
  for array in others:
    if len(array) != n * (views or 1):
      of_views = f", {n} examples times {views} views" if views else ""
      raise ValueError(f"further inputs must have {n * (views or 1)} rows{of_views}; got {len(array)}.")
  if not (0 <= label_smoothing < 1 and 0 <= mixup < float("inf")):
    raise ValueError(f"label_smoothing must be in [0, 1) and mixup finite and >= 0; got {label_smoothing} and {mixup}.")
  if (label_smoothing or mixup) and num_classes is None:
    raise ValueError("label_smoothing and mixup make distributions of labels: num_classes is needed.")
