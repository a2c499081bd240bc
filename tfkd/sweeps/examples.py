"""Batches of a sweep's data set, for training, evaluation, calibration and caching."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from tfkd import data
from tfkd.preprocessing import Preprocessing
from tfkd.sweeps.configuration import SweepConfig
from tfkd.sweeps.datasets import ArrayData, PipelineData, num_values
from tfkd.teachers import CachedTeacher

_EVALUATION_VALUES = (
  500 * 32 * 32
)  # Pixels or numbers. Limits evaluation batches; training batches may be larger, and then these are too.


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
    self.name, self.outputs, self.input_shape = source.name, source.outputs, source.input_shape
    self.metadata = source.metadata
    self.preprocessing: Preprocessing | None = source.preprocessing if source.scale_pixels else None
    self.num_train, self.num_test = (_length(source.arrays(split)) for split in ("train", "test"))
    self.has_weights = len(source.train) == 3
    if config.batch_size > self.num_train:
      raise ValueError(f"batch_size is {config.batch_size}, but there are only {self.num_train} training examples.")
    _check_last_batch(self.num_train, config.batch_size, num_replicas)
    if config.views is not None and not config.augment:
      raise ValueError(f"views={config.views} is a number of augmentations: augment=True is needed.")
    if config.augment and source.augment is None:
      raise ValueError(f"augment=True needs a data set with an augmentation; {source.name} has none.")
    if self.has_distributions and not (self.outputs.has_mixable_labels and not self.has_weights):
      option = "mixup" if config.mixup else "label_smoothing"
      raise ValueError(
        f"{option} is for single class labels without weights and with the default loss; the task of {source.name} is "
        f"{self.outputs.task!r}: set it to 0."
      )

  def num_examples(self, split: str) -> int:
    """Returns the number of examples of a split that students are trained on."""
    return _length(self._source.arrays(split))

  def has_labels(self, split: str) -> bool:
    """Whether a split has labels."""
    return self._source.arrays(split)[1] is not None

  @property
  def always_new(self) -> bool:
    """Whether examples change in every epoch, so that teacher outputs cannot be cached."""
    return bool(self._config.augment and self._config.views is None or self._config.mixup)

  @property
  def has_distributions(self) -> bool:
    """Whether labels of training batches are distributions over classes."""
    return bool(self._config.label_smoothing or self._config.mixup)

  def arrays(self, split: str) -> tuple[Any, ...]:
    """Returns inputs, labels and, where there are any, sample weights of a split as the data set has them."""
    return self._source.arrays(split)

  def batches(self, split: str, **options) -> tf.data.Dataset:
    """Makes batches of (inputs, labels[, weights]) of a whole split as the networks read them in evaluation.

    Args:
      split: name of a split.
      **options: shuffle_seed, first_step and stride of `tfkd.data.batches`; by default, examples are in order.
    """
    return self._evaluation(self._source.arrays(split), **options)

  def train_batches(
    self, seed: int, first_step: int, stride: int = 1, outputs: Any = None, split: str = "train"
  ) -> tf.data.Dataset:
    """Makes endless training batches.

    Args:
      seed: decides order and augmentation.
      first_step, stride: see `tfkd.data.batches`.
      outputs: cached teacher outputs of the split, joined to the inputs; None for inputs alone.
      split: the split to train on.
    """
    config = self._config
    label_transforms: list[data.Transform] = [*self._one_hot(config.label_smoothing)]
    if config.mixup:
      label_transforms.append(data.MixUp(config.mixup))
    return self._batches(
      self._source.arrays(split),
      config.batch_size,
      outputs=outputs,
      shuffle_seed=seed,
      first_step=first_step,
      stride=stride,
      label_transforms=label_transforms,
      **self._augmentation,
    )

  def test_batches(self, cached: CachedTeacher | None = None) -> tf.data.Dataset:
    """Makes batches of the test set, with labels as the training loss reads them.

    Args:
      cached: teacher outputs of the test set, joined to the inputs; None for inputs alone.
    """
    outputs = None if cached is None else cached.outputs
    return self._evaluation(self._source.test, outputs=outputs, label_transforms=self._one_hot())

  def calibration_batches(self) -> tf.data.Dataset:
    """Makes shuffled training batches, since calibration reads only the first of them."""
    return self._batches(self._source.train, self._config.batch_size, shuffle_seed=0)

  def cacheable(self, splits: Sequence[str] = ("train",)) -> dict[str, tuple[str, Callable[[], tf.data.Dataset]]]:
    """Returns (directory name, function that makes batches) of every split whose teacher outputs can be cached.

    Args:
      splits: those that students are trained on.
    """
    found = {"test": ("test", functools.partial(self._evaluation, self._source.test))}
    if not self.always_new:
      views = self._config.views
      for split in splits:
        name = split if views is None else f"{split}-{views}views"
        found[split] = (name, functools.partial(self._evaluation, self._source.arrays(split), **self._augmentation))
    return found

  @property
  def _augmentation(self) -> dict[str, Any]:
    return {"augment": self._config.augment, "views": self._config.views}

  def _one_hot(self, smoothing=0.0):
    return [data.OneHot(self.outputs.size, smoothing)] if self.has_distributions else []

  def _evaluation(self, arrays, **options):
    """Makes batches as large as memory allows, the last of which has an example for every replica."""
    values = max(num_values(self.input_shape), self.outputs.num_scores(self._source.test[1]))
    size = max(self._config.batch_size, _EVALUATION_VALUES // values)
    n = _length(arrays)
    size = min(size, n)
    while 0 < n % size < self._num_replicas:
      size -= 1
    return self._batches(arrays, size, **options)

  def _batches(self, arrays, size, *, outputs=None, augment=False, views=None, label_transforms=(), **options):
    inputs, labels, weights = arrays if len(arrays) == 3 else (*arrays, None)
    transforms = [*self._source.transforms(augment, views), *label_transforms]
    return data.batches(
      inputs if outputs is None else (inputs, outputs),
      labels,
      size,
      sample_weight=weights,
      scale_pixels=self._source.scale_pixels,
      transforms=transforms,
      **options,
    )


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
    self.name, self.outputs, self.input_shape = source.name, source.outputs, source.input_shape
    self.metadata = source.metadata
    self.preprocessing: Preprocessing | None = source.preprocessing
    self.num_train = source.num_train
    defaults = SweepConfig._field_defaults
    fields = ("augment", "views", "label_smoothing", "mixup")
    changed = [field for field in fields if getattr(config, field) != defaults[field]]
    if changed:
      raise ValueError(f"PipelineData cannot apply {' and '.join(changed)}: transform the examples in its functions.")
    first = next(iter(source.train(0).take(1)))
    self.has_weights = len(first) == 3
    size = len(tf.nest.flatten(first[0])[0])
    if size != min(config.batch_size, source.num_train):
      raise ValueError(f"batch_size is {config.batch_size}, but the training batches have {size} examples.")
    steps, expected = int(source.train(0).cardinality()), -(-source.num_train // config.batch_size)
    if steps >= 0 and steps != expected:
      raise ValueError(f"num_train is {source.num_train}, {expected} batches, but an epoch has {steps} batches.")
    _check_last_batch(source.num_train, config.batch_size, num_replicas)

  @functools.cached_property
  def num_test(self) -> int:
    """Number of test examples, counted once."""
    return sum(len(tf.nest.flatten(batch[0])[0]) for batch in self._source.test())

  def num_examples(self, split: str) -> int:
    """Returns the number of training examples; students are trained on no other split."""
    if split != "train":
      raise ValueError(f"students of PipelineData are trained on 'train'; got split={split!r}: use ArrayData.")
    return self.num_train

  def has_labels(self, split: str) -> bool:
    """Whether a split has labels: all of them have."""
    return True

  def batches(self, split: str, shuffle_seed: int | None = None) -> tf.data.Dataset:
    """Makes batches of (inputs, labels[, weights]) of a whole split.

    Args:
      split: name of a split.
      shuffle_seed: of "train"; other splits are in the order of their function.
    """
    if split not in self._source.splits:
      raise ValueError(f"{self.name} has no split {split!r}: expected one of {', '.join(self._source.splits)}.")
    return self._source.train(shuffle_seed or 0) if split == "train" else self._source.splits[split]()

  def train_batches(
    self, seed: int, first_step: int, stride: int = 1, outputs: Any = None, split: str = "train"
  ) -> tf.data.Dataset:
    """Makes endless training batches; see `ArrayExamples.train_batches`. There are no cached outputs to join."""
    return self._source.train(seed).repeat().skip(first_step).shard(stride, 0)

  def test_batches(self, cached: CachedTeacher | None = None) -> tf.data.Dataset:
    """Makes batches of the whole test set; see `ArrayExamples.test_batches`."""
    return self._source.test() if cached is None else cached.zip(self._source.test())

  def calibration_batches(self) -> tf.data.Dataset:
    """Makes training batches in the order of seed 0."""
    return self._source.train(0)

  def cacheable(self, splits: Sequence[str] = ()) -> dict[str, tuple[str, Callable[[], tf.data.Dataset]]]:
    """Returns the test split, whose teacher outputs agreement is measured with."""
    return {"test": ("test", self._source.test)}


Examples = ArrayExamples | PipelineExamples


def examples_of(source: ArrayData | PipelineData, config: SweepConfig, num_replicas: int) -> Examples:
  """Makes the batches of a data set."""
  if isinstance(source, PipelineData):
    return PipelineExamples(source, config, num_replicas)
  return ArrayExamples(source, config, num_replicas)


def _length(arrays):
  return len(tf.nest.flatten(arrays[0])[0])


def _check_last_batch(num_train, batch_size, num_replicas):
  """Refuses a last batch that leaves a replica without examples."""
  last = num_train % batch_size
  if 0 < last < num_replicas:
    # oneDNN's convolutions fail on empty batches, and batch normalization would learn NaN from them.
    raise ValueError(
      f"the last batch of an epoch has {last} examples for {num_replicas} replicas: choose another batch_size, or "
      "another number of training examples, as by limit_train."
    )
