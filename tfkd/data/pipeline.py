"""Arrays to `tf.data`: whole batches are gathered, augmented and scaled at once."""

import numpy as np
import tensorflow as tf

from tfkd.data.augment import mixup as mix


def batches(
  inputs, labels, batch_size, *, shuffle_seed=None, augment=None, side=None, normalize=None, num_classes=None,
  label_smoothing=0.0, mixup=0.0,
):  # fmt: skip
  """Makes a data set of batches from arrays in memory.

  Args:
    inputs: images uint8 [n, height, width, channels], or a tuple of them and further arrays [n, ...], such as the
      teacher's logits, which pass unchanged. A memory-mapped array is read batch by batch.
    labels: int [n].
    batch_size: examples of a batch, over all replicas; the last batch may be smaller.
    shuffle_seed: int for another order in every epoch, reproducible; None keeps the order.
    augment: function from (images float in [0, 1], seed int [2]) to such images, see `tfkd.data.augment`.
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
  arrays = (*inputs, labels) if isinstance(inputs, tuple) else (inputs, labels)
  _check(arrays, batch_size, augment, num_classes, label_smoothing, mixup)
  takes = [_taker(array) for array in arrays]
  order = tf.data.Dataset.from_tensor_slices(np.arange(len(labels)))
  if shuffle_seed is not None:
    order = order.shuffle(len(labels), seed=shuffle_seed)

  def gather(indices, seed=None):
    images, *others, y = (take(indices) for take in takes)
    images = tf.cast(images, tf.float32) / 255
    if augment:
      images = augment(images, seed)
    elif side:
      images = _middle(images, side)
    if normalize:
      mean, deviation = normalize
      images = (images - mean) / deviation
    if num_classes is not None:
      y = (1 - label_smoothing) * tf.one_hot(y, num_classes) + label_smoothing / num_classes
    if mixup:
      images, y = mix(images, y, seed, mixup)
    return ((images, *others) if others else images), y

  dataset = order.batch(batch_size)
  if augment or mixup:
    rng_seeds = tf.data.Dataset.random(seed=shuffle_seed or 0, rerandomize_each_iteration=True).batch(2)
    dataset = tf.data.Dataset.zip(dataset, rng_seeds)
  return dataset.map(gather, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def _taker(array):
  """A function from indices to rows of an array."""
  if not isinstance(array, np.memmap):
    with tf.device("CPU"):
      tensor = tf.convert_to_tensor(array)
    return lambda indices: tf.gather(tensor, indices)

  def take(indices):
    rows = tf.numpy_function(lambda i: np.asarray(array[i]), [indices], tf.as_dtype(array.dtype))
    return tf.ensure_shape(rows, [None, *array.shape[1:]])

  return take


def _middle(images, side):
  top, left = (images.shape[1] - side) // 2, (images.shape[2] - side) // 2
  return images[:, top : top + side, left : left + side]


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
