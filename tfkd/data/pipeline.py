"""Arrays to `tf.data`: whole batches are gathered, augmented and scaled at once."""

import numpy as np
import tensorflow as tf

_PADDING = 4


def batches(
  inputs, labels, batch_size, *, shuffle_seed=None, augment=False, flip=False, num_classes=None, label_smoothing=0.0,
  mixup=0.0,
):  # fmt: skip
  """Makes a data set of batches from arrays in memory.

  Args:
    inputs: images uint8 [n, height, width, channels], or a tuple of them and further arrays [n, ...], such as the
      teacher's logits, which pass unchanged.
    labels: int [n].
    batch_size: examples of a batch, over all replicas; the last batch may be smaller.
    shuffle_seed: int for another order in every epoch, reproducible; None keeps the order.
    augment: random crops after padding by 4 pixels (with reflection).
    flip: with augment, mirror half of the images left to right.
    num_classes: give each label as a distribution over so many classes; None gives it as it is.
    label_smoothing: share of a label that is spread over all classes, in [0, 1) (Szegedy et al. 2016,
      arXiv:1512.00567); needs num_classes.
    mixup: alpha of mixup, 0 for none (Zhang et al. 2018, arXiv:1710.09412): image and label become l * own + (1 - l) *
      another example's of the batch, l ~ Beta(alpha, alpha) for each example; needs num_classes.

  Returns:
    `tf.data.Dataset` of (inputs, labels), images as float32 in [0, 1]; labels as given, or float32
    [batch, num_classes].

  Raises:
    ValueError: there are fewer examples than a batch holds, lengths differ, or an option is out of range or lacks what
      it needs.
  """
  arrays = (*inputs, labels) if isinstance(inputs, tuple) else (inputs, labels)
  _check(arrays, batch_size, augment, num_classes, label_smoothing, mixup)
  with tf.device("CPU"):
    tensors = [tf.convert_to_tensor(a) for a in arrays]
  order = tf.data.Dataset.from_tensor_slices(np.arange(len(labels)))
  if shuffle_seed is not None:
    order = order.shuffle(len(labels), seed=shuffle_seed)

  def gather(indices):
    images, *others, y = (tf.gather(t, indices) for t in tensors)
    images = tf.cast(images, tf.float32) / 255
    if num_classes is not None:
      y = (1 - label_smoothing) * tf.one_hot(y, num_classes) + label_smoothing / num_classes
    return ((images, *others) if others else images), y

  dataset = order.batch(batch_size).map(gather, num_parallel_calls=tf.data.AUTOTUNE)

  def change(batch, seed):
    if augment:
      batch = _augment(batch[0], seed, flip), batch[1]
    return _mix(*batch, seed, mixup) if mixup else batch

  if augment or mixup:
    rng_seeds = tf.data.Dataset.random(seed=shuffle_seed or 0, rerandomize_each_iteration=True).batch(2)
    dataset = tf.data.Dataset.zip(dataset, rng_seeds).map(change, num_parallel_calls=tf.data.AUTOTUNE)
  return dataset.prefetch(tf.data.AUTOTUNE)


def _check(arrays, batch_size, augment, num_classes, label_smoothing, mixup):
  lengths = sorted({len(a) for a in arrays})
  if len(lengths) > 1:
    raise ValueError(f"inputs and labels must have one length; got {lengths}.")
  if not 1 <= batch_size <= lengths[0]:
    raise ValueError(f"batch_size must be between 1 and the number of examples, {lengths[0]}; got {batch_size}.")
  if len(arrays) > 2 and (augment or mixup):
    raise ValueError(
      "changed images do not belong to outputs computed before: use neither augment nor mixup with them."
    )
  if not (0 <= label_smoothing < 1 and 0 <= mixup < float("inf")):
    raise ValueError(f"label_smoothing must be in [0, 1) and mixup finite and >= 0; got {label_smoothing} and {mixup}.")
  if (label_smoothing or mixup) and num_classes is None:
    raise ValueError("label_smoothing and mixup make distributions of labels: num_classes is needed.")


def _augment(images, seed, flip):
  """Random crops of padded images, each image its own; one gather for the batch."""
  n, height, width = tf.shape(images)[0], images.shape[1], images.shape[2]
  pad = [[0, 0], [_PADDING, _PADDING], [_PADDING, _PADDING], [0, 0]]
  padded = tf.pad(images, pad, mode="REFLECT")
  offsets = tf.random.stateless_uniform([n, 2], seed, 0, 2 * _PADDING + 1, tf.int32)
  rows = offsets[:, :1] + tf.range(height)
  columns = offsets[:, 1:] + tf.range(width)
  if flip:
    mirrored = tf.random.stateless_uniform([n, 1], seed + 1) < 0.5
    columns = tf.where(mirrored, columns[:, ::-1], columns)
  images = tf.gather(padded, rows, axis=1, batch_dims=1)
  return tf.gather(images, columns, axis=2, batch_dims=1)


def _mix(images, labels, seed, alpha):
  """Each example with its mirror in the batch, whose order is random already."""
  n = tf.shape(images)[0]
  # Beta(a, a) as a ratio of gamma variates.
  own, other = (tf.random.stateless_gamma([n], seed + i, alpha) for i in (2, 3))
  # Both underflow to 0 where alpha is tiny: an example stays its own then.
  share = tf.where(own + other > 0, tf.math.divide_no_nan(own, own + other), 1.0)

  def mixed(x):
    weight = tf.reshape(share, [n] + [1] * (x.shape.rank - 1))
    return weight * x + (1 - weight) * x[::-1]

  return mixed(images), mixed(labels)
