"""Batches of a sweep's data set, for training, evaluation, calibration and caching."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from tfkd import data
from tfkd.preprocessing import Preprocessing
from tfkd.sweeps.configuration import SweepConfig
from tfkd.sweeps.datasets import ArrayData, PipelineData, num_values

_EVALUATION_PIXELS = 500 * 32 * 32  # Limits evaluation batches; training batches may be larger, and then these are too.


class ArrayExamples:
  """Batches of arrays in memory.

  Args:
    source: the data set.
    config: batch_size, augment, views, label_smoothing and mixup are read.
    num_replicas: number of devices that share a batch.

  Raises:
    ValueError: a batch does not fit the number of examples, or options contradict each other.
  """

  def __init__(self, source: ArrayData, config: SweepConfig, num_replicas: int):
    self._source, self._config, self._num_replicas = source, config, num_replicas
    self.name, self.classes, self.input_shape = source.name, source.classes, source.input_shape
    self.preprocessing: Preprocessing | None = source.preprocessing if source.scale_pixels else None
    self.num_train, self.num_test = len(source.train[1]), len(source.test[1])
    if config.batch_size > self.num_train:
      raise ValueError(f"batch_size is {config.batch_size}, but there are only {self.num_train} training examples.")
    _check_last_batch(self.num_train, config.batch_size, num_replicas)
    if config.views is not None and not config.augment:
      raise ValueError(f"views={config.views} is a number of augmentations: augment=True is needed.")
    if config.augment and source.augment is None:
      raise ValueError(f"augment=True needs a data set with an augmentation; {source.name} has none.")

  @property
  def always_new(self) -> bool:
    """Whether examples change in every epoch, so that teacher outputs cannot be cached."""
    return bool(self._config.augment and self._config.views is None or self._config.mixup)

  @property
  def has_distributions(self) -> bool:
    """Whether labels of training batches are distributions over classes."""
    return bool(self._config.label_smoothing or self._config.mixup)

  def arrays(self, split: str) -> tuple[Any, np.ndarray]:
    """Returns inputs and labels of a split as the data set has them."""
    return self._source.arrays(split)

  def batches(self, split: str, **options) -> tf.data.Dataset:
    """Makes batches of (inputs, labels) of a whole split as the networks read them in evaluation.

    Args:
      split: name of a split.
      **options: shuffle_seed, first_step and stride of `tfkd.data.batches`; by default, examples are in order.
    """
    return self._evaluation(*self._source.arrays(split), **options)

  def train_batches(self, seed: int, first_step: int, stride: int = 1, outputs: Any = None) -> tf.data.Dataset:
    """Makes endless training batches.

    Args:
      seed: decides order and augmentation.
      first_step, stride: see `tfkd.data.batches`.
      outputs: cached teacher outputs of the training set, joined to the inputs; None for inputs alone.
    """
    config, (inputs, labels) = self._config, self._source.train
    label_transforms: list[data.Transform] = [*self._one_hot(config.label_smoothing)]
    if config.mixup:
      label_transforms.append(data.MixUp(config.mixup))
    return self._batches(
      inputs if outputs is None else (inputs, outputs),
      labels,
      config.batch_size,
      shuffle_seed=seed,
      first_step=first_step,
      stride=stride,
      label_transforms=label_transforms,
      **self._augmentation,
    )

  def test_batches(self, outputs: Any = None) -> tf.data.Dataset:
    """Makes batches of the test set, with labels as the training loss reads them; outputs as for `train_batches`."""
    inputs, labels = self._source.test
    return self._evaluation(inputs if outputs is None else (inputs, outputs), labels, label_transforms=self._one_hot())

  def calibration_batches(self) -> tf.data.Dataset:
    """Makes shuffled training batches, since calibration reads only the first of them."""
    return self._batches(*self._source.train, self._config.batch_size, shuffle_seed=0)

  def cacheable(self) -> dict[str, tuple[str, Callable[[], tf.data.Dataset]]]:
    """Returns (directory name, function that makes batches) of every split whose teacher outputs can be cached."""
    found = {"test": ("test", functools.partial(self._evaluation, *self._source.test))}
    if not self.always_new:
      views = self._config.views
      name = "train" if views is None else f"train-{views}views"
      found["train"] = (name, functools.partial(self._evaluation, *self._source.train, **self._augmentation))
    return found

  @property
  def _augmentation(self) -> dict[str, Any]:
    return {"augment": self._config.augment, "views": self._config.views}

  def _one_hot(self, smoothing=0.0):
    return [data.OneHot(len(self.classes), smoothing)] if self.has_distributions else []

  def _evaluation(self, inputs, labels, **options):
    """Makes batches as large as memory allows, the last of which has an example for every replica."""
    size = max(self._config.batch_size, _EVALUATION_PIXELS // num_values(self.input_shape))
    size = min(size, len(labels))
    while 0 < len(labels) % size < self._num_replicas:
      size -= 1
    return self._batches(inputs, labels, size, **options)

  def _batches(self, inputs, labels, batch_size, *, augment=False, views=None, label_transforms=(), **options):
    transforms = [*self._source.transforms(augment, views), *label_transforms]
    scale_pixels = self._source.scale_pixels
    return data.batches(inputs, labels, batch_size, scale_pixels=scale_pixels, transforms=transforms, **options)


class PipelineExamples:
  """Batches of functions that return `tf.data` data sets, with the methods of `ArrayExamples`.

  Args:
    source: the data set.
    config: batch_size is read.
    num_replicas: number of devices that share a batch.

  Raises:
    ValueError: the batches differ from batch_size, or the configuration asks for changes of examples.
  """

  always_new = True
  has_distributions = False

  def __init__(self, source: PipelineData, config: SweepConfig, num_replicas: int):
    self._source = source
    self.name, self.classes, self.input_shape = source.name, source.classes, source.input_shape
    self.preprocessing: Preprocessing | None = source.preprocessing
    self.num_train = source.num_train
    defaults = SweepConfig._field_defaults
    fields = ("augment", "views", "label_smoothing", "mixup")
    changed = [field for field in fields if getattr(config, field) != defaults[field]]
    if changed:
      raise ValueError(f"PipelineData cannot apply {' and '.join(changed)}: transform the examples in its functions.")
    size = len(next(iter(source.train(0).take(1)))[1])
    if size != min(config.batch_size, source.num_train):
      raise ValueError(f"batch_size is {config.batch_size}, but the training batches have {size} examples.")
    steps, expected = int(source.train(0).cardinality()), -(-source.num_train // config.batch_size)
    if steps >= 0 and steps != expected:
      raise ValueError(f"num_train is {source.num_train}, {expected} batches, but an epoch has {steps} batches.")
    _check_last_batch(source.num_train, config.batch_size, num_replicas)

  @functools.cached_property
  def num_test(self) -> int:
    """Number of test examples, counted once."""
    return sum(len(labels) for _, labels in self._source.test())

  def batches(self, split: str, shuffle_seed: int | None = None) -> tf.data.Dataset:
    """Makes batches of (inputs, labels) of a whole split.

    Args:
      split: name of a split.
      shuffle_seed: of "train"; other splits are in the order of their function.
    """
    if split not in self._source.splits:
      raise ValueError(f"{self.name} has no split {split!r}: expected one of {', '.join(self._source.splits)}.")
    return self._source.train(shuffle_seed or 0) if split == "train" else self._source.splits[split]()

  def train_batches(self, seed: int, first_step: int, stride: int = 1, outputs: Any = None) -> tf.data.Dataset:
    """Makes endless training batches; see `ArrayExamples.train_batches`. There are no cached outputs to join."""
    return self._source.train(seed).repeat().skip(first_step).shard(stride, 0)

  def test_batches(self, outputs: Any = None) -> tf.data.Dataset:
    """Makes batches of the whole test set."""
    return self._source.test()

  def calibration_batches(self) -> tf.data.Dataset:
    """Makes training batches in the order of seed 0."""
    return self._source.train(0)

  def cacheable(self) -> dict[str, tuple[str, Callable[[], tf.data.Dataset]]]:
    """Returns the test split, whose teacher outputs agreement is measured with."""
    return {"test": ("test", self._source.test)}


Examples = ArrayExamples | PipelineExamples


def examples_of(source: ArrayData | PipelineData, config: SweepConfig, num_replicas: int) -> Examples:
  """Makes the batches of a data set."""
  if isinstance(source, PipelineData):
    return PipelineExamples(source, config, num_replicas)
  return ArrayExamples(source, config, num_replicas)


def _check_last_batch(num_train, batch_size, num_replicas):
  """Refuses a last batch that leaves a replica without examples."""
  last = num_train % batch_size
  if 0 < last < num_replicas:
    # oneDNN's convolutions fail on empty batches, and batch normalization would learn NaN from them.
    raise ValueError(
      f"the last batch of an epoch has {last} examples for {num_replicas} replicas: choose another batch_size, or "
      "another number of training examples, as by limit_train."
    )
