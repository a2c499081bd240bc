"""Refuses arguments of `tfkd.data.batches` that contradict each other."""

import numpy as np
import tensorflow as tf


def check_arrays(images, others, labels, views):
  """Checks that all arrays are of the same examples.

  Args:
    images: array [n, ...], or a dict or tuple of such.
    others: nested arrays [views * n, ...].
    labels: nested arrays [n, ...], or None.
    views: int or None.

  Returns:
    n.

  Raises:
    ValueError: something is no array, or of another length.
  """
  for name, nested in (("inputs", images), ("further inputs", others), ("labels", labels)):
    _check_nested(name, nested)
  n = len(tf.nest.flatten(images)[0])
  lengths = {len(array) for array in tf.nest.flatten([images, [] if labels is None else labels])}
  if len(lengths) > 1:
    found = " and ".join(map(str, sorted(lengths, key=lambda length: length != n)))
    raise ValueError(f"images and labels must have one length; got {found}.")
  for array in tf.nest.flatten(others):
    if len(array) != n * (views or 1):
      of_views = f", {n} examples times {views} views" if views else ""
      raise ValueError(f"further inputs must have {n * (views or 1)} rows{of_views}; got {len(array)}.")
  return n


def check_options(n, others, batch_size, augment, views, mixup):
  """Checks how batches are made.

  Raises:
    ValueError: an option is out of range or lacks what it needs.
  """
  if not 1 <= batch_size <= n:
    raise ValueError(f"batch_size must be between 1 and the number of examples, {n}; got {batch_size}.")
  if views is not None and not (isinstance(views, int) and views > 0 and augment):
    raise ValueError(f"views must be a whole number > 0, of an augment; got {views}.")
  if others and mixup or others and augment and not views:
    raise ValueError(
      "changed images do not belong to outputs computed before: use no mixup with them, and no augment without views."
    )


def check_images(images, **options):
  """Checks that images can be scaled, augmented, cut, normalized and mixed as asked.

  Args:
    images: of `batches`.
    **options: scale_pixels, augment, side, normalize and mixup of `batches`.

  Raises:
    ValueError: an option is out of range, or not for such values.
  """
  asked = [
    name
    for name, value in options.items()
    if not (value is None or isinstance(value, (bool, int, float)) and not value)
  ]
  if not asked:
    return
  if tf.nest.is_nested(images):
    raise ValueError(
      f"{asked[0]} is for one array of images; got a {type(images).__name__} of inputs: change them by `map` of the "
      "data set that comes out."
    )
  dtype, shape = _dtype(images), tuple(images.shape)
  if options["scale_pixels"] and dtype != tf.uint8:
    raise ValueError(f"scale_pixels divides uint8 by 255; these inputs are {dtype.name}: leave it out.")
  for name in asked:
    if name in ("augment", "side") and len(shape) != 4:
      raise ValueError(f"{name} is for images [n, height, width, channels]; got an array of shape {list(shape)}.")
    if name in ("augment", "normalize", "mixup") and not (dtype.is_floating or options["scale_pixels"]):
      hint = "add scale_pixels=True if they are pixels" if dtype == tf.uint8 else "they are no pixels"
      raise ValueError(f"{name} is for float inputs; these are {dtype.name}: {hint}, or leave {name} out.")
  if options["side"] is not None and not options["augment"] and not 1 <= options["side"] <= min(shape[1:3]):
    raise ValueError(f"side must be between 1 and {min(shape[1:3])}, the images' own; got {options['side']}.")
  if options["normalize"] is not None:
    _check_normalize(options["normalize"], shape)


def check_labels(labels, num_classes, label_smoothing, mixup):
  """Checks that labels can be made distributions as asked.

  Raises:
    ValueError: an option is out of range, or not for such labels.
  """
  if not (0 <= label_smoothing < 1 and 0 <= mixup < float("inf")):
    raise ValueError(f"label_smoothing must be in [0, 1) and mixup finite and >= 0; got {label_smoothing} and {mixup}.")
  if num_classes is None:
    if label_smoothing or mixup:
      raise ValueError("label_smoothing and mixup make distributions of labels: num_classes is needed.")
    return
  if labels is None or tf.nest.is_nested(labels) or not _dtype(labels).is_integer:
    found = f"a {type(labels).__name__}" if labels is None or tf.nest.is_nested(labels) else _dtype(labels).name
    raise ValueError(f"num_classes is for one array of integer labels; got {found}: leave it out.")
  least, most = int(np.min(labels)), int(np.max(labels))
  if least < 0 or most >= num_classes:
    raise ValueError(f"labels must be in 0..{num_classes - 1} for num_classes={num_classes}; got {least}..{most}.")


def _check_nested(name, nested):
  if isinstance(nested, list):
    raise ValueError(
      f"{name} must be an array, or several in a dict or tuple; got a list: use `np.asarray`, or a dict."
    )
  if isinstance(nested, (dict, tuple)):
    for part in nested.values() if isinstance(nested, dict) else nested:
      _check_nested(name, part)
  elif (
    nested is not None and not getattr(nested, "shape", ()) or isinstance(nested, (tf.RaggedTensor, tf.SparseTensor))
  ):
    raise ValueError(f"{name} must be dense arrays [n, ...]; got a {type(nested).__name__}.")


def _check_normalize(normalize, shape):
  mean, std = (np.asarray(part, np.float64) for part in normalize)
  fits = all(part.shape in ((), (1,), (shape[-1],)) for part in (mean, std))
  if not (fits and np.isfinite(mean).all() and np.isfinite(std).all() and (std > 0).all()):
    raise ValueError(
      f"normalize must be (mean, std) with std > 0, numbers or one for each of {shape[-1]} channels; got {normalize}."
    )


def _dtype(array):
  return tf.as_dtype(array.dtype)
