"""Transforms of `tfkd.data.batches`: each changes the inputs or labels of whole batches."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfkd.data.augment import Draw, ImageFunction, mixup
from tfkd.preprocessing import Preprocessing

_LANES = 16  # Examples: a multiple of the vector width of any processor.


class Batch(NamedTuple):
  """The examples of one batch, inside `tf.data`."""

  inputs: Any
  """Tensor [batch, ...], or a dict or tuple of tensors."""
  labels: Any
  """Tensor [batch, ...], or a dict or tuple of tensors; () without labels."""
  indices: tf.Tensor
  """int64 [batch]: positions of the examples in the arrays, plus `num_examples` times the augmentation view."""
  seed: tf.Tensor
  """int64 [2], different for each batch."""
  num_examples: int


class Examples(NamedTuple):
  """The inputs and labels of all examples as a transform finds them: arrays, or specs once a transform changed them."""

  inputs: Any
  labels: Any
  num_examples: int


class Transform:
  """Base class of transforms.

  `check` refuses examples that the transform is not made for, before anything runs; `__call__` transforms a batch.
  """

  is_repeatable: bool = True
  """Whether an example is transformed in the same way in every epoch, so that outputs computed before belong to it."""

  def check(self, examples: Examples) -> Examples:
    """Returns the examples as the next transform finds them.

    Raises:
      ValueError: the transform is not made for such inputs or labels.
    """
    return examples

  def __call__(self, batch: Batch) -> Batch:
    raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class ScalePixels(Transform):
  """Divides uint8 images by 255, which gives float32 in [0, 1]."""

  def check(self, examples: Examples) -> Examples:
    inputs = _one_array("scale_pixels", examples.inputs)
    if inputs.dtype != tf.uint8:
      raise ValueError(f"scale_pixels divides uint8 by 255; got {inputs.dtype.name} inputs: leave it out.")
    return examples._replace(inputs=tf.TensorSpec(inputs.shape, tf.float32))

  def __call__(self, batch: Batch) -> Batch:
    return batch._replace(inputs=tf.cast(batch.inputs, tf.float32) / 255)


@dataclasses.dataclass(frozen=True)
class Augment(Transform):
  """Changes images at random without changing their class.

  Args:
    function: from (images float in [0, 1], draw) to images, such as `tfkd.data.augment.padded_crop`.
    views: number of fixed augmentations per example, each determined by example and view index; None draws a new
      augmentation every time. In order, the data set yields view 0 of all examples, then view 1, and so on, which is
      the order in which `tfkd.teachers.cache` stores the teacher's outputs. Shuffled, each epoch yields one randomly
      drawn view of each example. So teacher and student see the same pixels (Beyer et al. 2022, arXiv:2106.05237;
      Shen, Xing 2022, arXiv:2112.01528).

  Raises:
    ValueError: views is not a positive integer.
  """

  function: ImageFunction
  views: int | None = None

  def __post_init__(self):
    if self.views is not None and not (isinstance(self.views, int) and self.views > 0):
      raise ValueError(f"views must be None or a positive integer; got {self.views!r}.")

  @property
  def is_repeatable(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
    return self.views is not None

  def check(self, examples: Examples) -> Examples:
    inputs = _floats("Augment", _images("Augment", examples.inputs))
    return examples._replace(inputs=tf.TensorSpec([None, None, None, inputs.shape[-1]], inputs.dtype))

  def __call__(self, batch: Batch) -> Batch:
    count = tf.shape(batch.indices)[0]
    if not self.views:
      return batch._replace(inputs=self.function(batch.inputs, _fresh_draw(count, batch.seed)))
    # Padding to full vectors gives a view the same bits in batches of every size: otherwise the last few examples of a
    # batch go through scalar instructions, which round differently.
    padded = tf.range(-(-count // _LANES) * _LANES) % count
    images, indices = tf.gather(batch.inputs, padded), tf.gather(batch.indices, padded)
    draw = _fixed_draw(indices, batch.num_examples, self.views)
    return batch._replace(inputs=self.function(images, draw)[:count])


@dataclasses.dataclass(frozen=True)
class CenterCrop(Transform):
  """Crops the centre of images.

  Args:
    size: height and width in pixels, or one int for a square.
  """

  size: int | tuple[int, int]

  def check(self, examples: Examples) -> Examples:
    inputs = _images("CenterCrop", examples.inputs)
    n, *sides, channels = inputs.shape.as_list()
    for wanted, own in zip(self._sides, sides, strict=True):
      if wanted < 1 or own is not None and wanted > own:
        raise ValueError(f"CenterCrop.size must be between 1 and the images' own {tuple(sides)}; got {self.size}.")
    return examples._replace(inputs=tf.TensorSpec([n, *self._sides, channels], inputs.dtype))

  def __call__(self, batch: Batch) -> Batch:
    images, (height, width) = batch.inputs, self._sides
    top, left = (images.shape[1] - height) // 2, (images.shape[2] - width) // 2
    return batch._replace(inputs=images[:, top : top + height, left : left + width])

  @property
  def _sides(self):
    return (self.size, self.size) if isinstance(self.size, int) else tuple(self.size)


@dataclasses.dataclass(frozen=True)
class Normalize(Transform):
  """Normalizes float inputs along the last axis: (scale * inputs - mean) / std.

  Args:
    preprocessing: scale, mean and std, such as `tfkd.preprocessing.IMAGENET`. Its size is not applied: `CenterCrop` and
      `Augment` choose the size.
  """

  preprocessing: Preprocessing

  def check(self, examples: Examples) -> Examples:
    inputs = _floats("Normalize", _one_array("Normalize", examples.inputs))
    self.preprocessing.mean_and_std(inputs.shape[-1])
    return examples

  def __call__(self, batch: Batch) -> Batch:
    inputs = batch.inputs
    mean, std = (part.astype(inputs.dtype.as_numpy_dtype) for part in self.preprocessing.mean_and_std())
    return batch._replace(inputs=(self.preprocessing.scale * inputs - mean) / std)


@dataclasses.dataclass(frozen=True)
class OneHot(Transform):
  """Converts integer labels to distributions over classes, float32 [batch, ..., num_classes].

  Args:
    num_classes: number of classes.
    smoothing: share of a label that is spread over all classes, in [0, 1) (Szegedy et al. 2016, arXiv:1512.00567).

  Raises:
    ValueError: smoothing is out of range.
  """

  num_classes: int
  smoothing: float = 0.0

  def __post_init__(self):
    if not 0 <= self.smoothing < 1:
      raise ValueError(f"OneHot.smoothing must be in [0, 1); got {self.smoothing}.")

  def check(self, examples: Examples) -> Examples:
    labels = examples.labels
    if labels is None or tf.nest.is_nested(labels) or not tf.as_dtype(labels.dtype).is_integer:
      found = f"a {type(labels).__name__}" if labels is None or tf.nest.is_nested(labels) else _spec(labels).dtype.name
      raise ValueError(f"OneHot needs one array of integer labels; got {found}: leave OneHot out.")
    if not isinstance(labels, tf.TensorSpec):
      least, most = int(np.min(labels)), int(np.max(labels))
      if least < 0 or most >= self.num_classes:
        raise ValueError(
          f"labels must be in 0..{self.num_classes - 1} for OneHot({self.num_classes}); got {least}..{most}."
        )
    return examples._replace(labels=tf.TensorSpec([*_spec(labels).shape, self.num_classes], tf.float32))

  def __call__(self, batch: Batch) -> Batch:
    one_hot = tf.one_hot(tf.cast(batch.labels, tf.int64), self.num_classes)
    return batch._replace(labels=(1 - self.smoothing) * one_hot + self.smoothing / self.num_classes)


@dataclasses.dataclass(frozen=True)
class MixUp(Transform):
  """Mixes each example with another one of the batch: share * example + (1 - share) * other.

  The share of each example is drawn from Beta(alpha, alpha).

  Source: Zhang et al. 2018, arXiv:1710.09412.

  Args:
    alpha: positive number; a small one leaves most examples nearly unchanged.

  Raises:
    ValueError: alpha is not positive and finite.
  """

  is_repeatable = False
  alpha: float

  def __post_init__(self):
    if not 0 < self.alpha < float("inf"):
      raise ValueError(f"MixUp.alpha must be positive and finite; got {self.alpha}.")

  def check(self, examples: Examples) -> Examples:
    _floats("MixUp", _one_array("MixUp", examples.inputs))
    labels = examples.labels
    if labels is None or tf.nest.is_nested(labels) or not _spec(labels).dtype.is_floating:
      raise ValueError("MixUp needs labels that are distributions over classes: put OneHot(num_classes) before it.")
    return examples

  def __call__(self, batch: Batch) -> Batch:
    inputs, labels = mixup(batch.inputs, batch.labels, batch.seed, self.alpha)
    return batch._replace(inputs=inputs, labels=labels)


def constant(array: Any) -> tf.Tensor:
  """Converts an array to a tensor outside the graph that is being traced, so that graphs do not hold copies of data."""
  with tf.init_scope(), tf.device("CPU"):
    return tf.convert_to_tensor(array)


def _fresh_draw(n, seed) -> Draw:
  """Draws new uniform numbers for each batch."""
  return lambda count: tf.random.stateless_uniform([n, count], seed)


def _fixed_draw(indices, n, views) -> Draw:
  """Draws uniform numbers that depend on example and view alone, not on the number of views."""

  def draw(count):
    table = [np.random.default_rng((count, view)).random((n, count), np.float32) for view in range(views)]
    return tf.gather(constant(np.concatenate(table)), indices)

  return draw


def _spec(array):
  return tf.TensorSpec(array.shape, tf.as_dtype(array.dtype))


def _one_array(name, inputs):
  """Returns the spec of inputs that are one array.

  Raises:
    ValueError: they are several.
  """
  if tf.nest.is_nested(inputs):
    raise ValueError(
      f"{name} needs inputs that are one array; got a {type(inputs).__name__}: use `map` on the resulting data set."
    )
  return _spec(inputs)


def _images(name, inputs):
  spec = _one_array(name, inputs)
  if spec.shape.rank != 4:
    raise ValueError(f"{name} needs images [n, height, width, channels]; got an array of shape {spec.shape.as_list()}.")
  return spec


def _floats(name, spec):
  if not spec.dtype.is_floating:
    hint = "add scale_pixels=True if they are pixels, or " if spec.dtype == tf.uint8 else ""
    raise ValueError(f"{name} needs float inputs; got {spec.dtype.name}: {hint}leave {name} out.")
  return spec
