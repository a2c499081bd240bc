"""Data sets of a sweep: arrays in memory, `tfkd.data.Dataset` objects, or functions that return `tf.data` data sets."""

import math
import os
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import tensorflow as tf

from tfkd import data
from tfkd.preprocessing import Preprocessing
from tfkd.storage.digests import sha256_of_arrays
from tfkd.sweeps.outputs import Outputs

Arrays = tuple[Any, ...]
"""(inputs, labels) or (inputs, labels, sample weights): arrays [n, ...], or dicts of arrays; labels may be None."""


class ArrayData:
  """A data set of arrays in memory.

  Labels are, by task:

  - "classes": int [n], positions in `classes`.
  - "per-element classes": int [n, ...], one for each pixel, token or other element.
  - "multi-label": 0 or 1, [n, ..., labels], in the order of `classes`; [n] for a single label.
  - "regression": numbers [n, ..., values], in the order of `classes`, which names them; [n] for a single one.

  Args:
    train, test: (inputs, labels) or (inputs, labels, sample weights). Inputs are an array [n, ...] such as images
      [n, height, width, channels], or a dict of arrays for a model with several inputs. Weights are [n] or one for each
      element. Elements of weight zero, such as padding, count nowhere and need no valid class.
    classes: names of the classes, of the labels, or of the numbers.
    task: of the networks' output; or a dict by name for networks that return a dict, and then labels, weights and
      classes are dicts, too.
    loss: Keras loss of the labels, its name or function, or a dict of these by output, in place of the task's own: the
      cross-entropy of classes, the binary cross-entropy, or the mean squared error.
    name: of the data set, in results and exported files.
    scale_pixels: divide uint8 images by 255, which gives float32 in [0, 1].
    preprocessing: mean and std by which inputs are normalized after scaling. Exported files contain them if
      scale_pixels is set.
    augment: function from (images float in [0, 1], draw) to images of input_shape, see `tfkd.data.augment`; applied if
      `SweepConfig.augment` is set. It changes no labels, so those of pixels need one that moves no pixels.
    input_shape: shape of one input of the networks; by default that of `train`. Larger images are cropped to their
      middle where they are not augmented.
    splits: further splits, dict from name to what `train` is, for `Sweep.predict` and for students with
      `StudentSpec.split`. Labels may be None, for students that learn from the teacher alone.
    metadata: JSON values by name that exported files contain, such as how inputs other than pixels are computed.

  Raises:
    ValueError: numbers of inputs and labels differ, or labels or weights do not fit the task.
  """

  def __init__(
    self,
    train: Arrays,
    test: Arrays,
    classes: Any,
    *,
    task: Any = "classes",
    loss: Any = None,
    name: str = "arrays",
    scale_pixels: bool = False,
    preprocessing: Preprocessing = Preprocessing(),  # noqa: B008  (immutable)
    augment: Callable | None = None,
    input_shape: tuple[int, ...] | None = None,
    splits: Mapping[str, Arrays] | None = None,
    metadata: Mapping[str, Any] = MappingProxyType({}),
  ):
    self.outputs = Outputs(task, classes, loss)
    given = {"train": train, "test": test, **(splits or {})}
    self._splits = {split: _checked(split, arrays, self.outputs) for split, arrays in given.items()}
    self.train, self.test = self._splits["train"], self._splits["test"]
    self.classes = self.outputs.names
    self.name = name
    self.scale_pixels = scale_pixels
    self.preprocessing = preprocessing
    self.augment = augment
    self.metadata = metadata
    self.input_shape = input_shape or _shapes(train[0])

  def arrays(self, split: str) -> Arrays:
    """Returns inputs, labels and, where there are any, sample weights of a split.

    Raises:
      ValueError: there is no such split.
    """
    if split not in self._splits:
      raise ValueError(f"{self.name} has no split {split!r}: expected one of {', '.join(self._splits)}.")
    return self._splits[split]

  def transforms(self, augment: bool = False, views: int | None = None) -> list[data.Transform]:
    """Returns the transforms from examples to inputs of the networks; see `tfkd.data.Dataset.transforms`."""
    found: list[data.Transform] = []
    if augment and self.augment is not None:
      found.append(data.Augment(self.augment, views))
    elif self.input_shape != _shapes(self.train[0]):
      found.append(data.CenterCrop((self.input_shape[0], self.input_shape[1])))
    return [*found, *([data.Normalize(self.preprocessing)] if self.preprocessing.normalizes else [])]

  def identity(self) -> dict[str, Any]:
    """Returns JSON values that differ for other data: SHA-256 of the arrays, preprocessing, augmentation, task."""
    further = {name: _digest(arrays) for name, arrays in self._splits.items() if name not in ("train", "test")}
    return {
      "dataset": self.name,
      "data_sha256": _digest(self.train, self.test),
      "data": {
        **self.outputs.identity(),
        "scale_pixels": self.scale_pixels,
        "preprocessing": np.asarray(self.preprocessing.mean_and_std()).tolist(),
        "augment": self.augment and getattr(self.augment, "__qualname__", repr(self.augment)),
        **({"splits_sha256": further} if further else {}),
      },
    }


class DatasetArrays(ArrayData):
  """A `tfkd.data.Dataset`, read into memory.

  Args:
    dataset: of `tfkd.data`, or of a class of your own.
    data_dir, limit_train: directory and number of training examples, see `tfkd.data.load_arrays`.

  Raises:
    ValueError: a file is damaged, or limit_train is out of range.
    OSError: the files are missing.
  """

  def __init__(self, dataset: data.Dataset, data_dir: str | os.PathLike | None = None, limit_train: int | None = None):
    self._dataset, self._data_dir = dataset, data_dir
    train = dataset.load_arrays("train", data_dir=data_dir, limit=limit_train)
    super().__init__(
      train,
      dataset.load_arrays("test", data_dir=data_dir),
      dataset.classes,
      name=dataset.name,
      scale_pixels=True,
      preprocessing=dataset.preprocessing,
      augment=dataset.augment,
      input_shape=dataset.image_shape,
    )

  def arrays(self, split: str) -> Arrays:
    return self._splits.get(split) or self._dataset.load_arrays(split, data_dir=self._data_dir)

  def transforms(self, augment: bool = False, views: int | None = None) -> list[data.Transform]:
    return self._dataset.transforms(augment, views)

  def identity(self) -> dict[str, Any]:
    """Returns name and SHA-256 of the arrays; options are part of the configuration."""
    return {"dataset": self.name, "data_sha256": _digest(self.train, self.test)}


class PipelineData:
  """A data set of functions that return `tf.data` data sets.

  The teacher runs online, and a resumed fit reads past the batches that were trained before. Augmentation and other
  changes of examples belong to the functions.

  Args:
    train: function from a seed to the batches of one epoch, (inputs, labels) or (inputs, labels, sample weights) as
      `fit` reads them, of `SweepConfig.batch_size` examples; only the last batch may be smaller. The same seed must
      give the same order, repeated epochs included, as `Dataset.shuffle(n, seed=seed)` does.
    test: function without arguments that returns the whole test set in batches.
    classes, task, loss: see `ArrayData`.
    input_shape: shape of one input of the networks; a dict of shapes for several inputs.
    num_train: number of training examples.
    name: of the data set, in results and exported files.
    version: any text that is changed when the data change; a work directory belongs to one version.
    preprocessing: mean and std by which the functions normalize pixels / 255, for exported files. None omits them, so
      that they must be given when a file is read.
    splits: further splits for `Sweep.predict`, dict from name to function as `test`.
    metadata: see `ArrayData`.
  """

  def __init__(
    self,
    train: Callable[[int], tf.data.Dataset],
    test: Callable[[], tf.data.Dataset],
    classes: Any,
    input_shape: Any,
    num_train: int,
    *,
    task: Any = "classes",
    loss: Any = None,
    name: str = "pipeline",
    version: str = "",
    preprocessing: Preprocessing | None = None,
    splits: Mapping[str, Callable[[], tf.data.Dataset]] | None = None,
    metadata: Mapping[str, Any] = MappingProxyType({}),
  ):
    self.train, self.test = train, test
    self.outputs = Outputs(task, classes, loss)
    self.classes = self.outputs.names
    self.input_shape = input_shape
    self.num_train = num_train
    self.name = name
    self.preprocessing = preprocessing
    self.metadata = metadata
    self._version = version
    self.splits = {"train": lambda: train(0), "test": test, **(splits or {})}

  def identity(self) -> dict[str, Any]:
    """Returns JSON values that differ for other data: names, sizes, version, and SHA-256 of the first test batch."""
    return {
      "dataset": self.name,
      "data_sha256": _digest(next(iter(self.test().take(1)))),
      "data": {**self.outputs.identity(), "num_train": self.num_train, "version": self._version},
    }


def _digest(*parts: Any) -> str:
  return sha256_of_arrays(np.asarray(array) for array in tf.nest.flatten(parts) if array is not None)


def num_values(input_shape: Any) -> int:
  """Number of pixels of an image, or of values of another input."""
  shapes = input_shape.values() if isinstance(input_shape, Mapping) else [input_shape]
  return sum(math.prod(shape[:2]) if len(shape) == 3 else math.prod(shape) for shape in shapes)


def _shapes(inputs: Any) -> Any:
  if isinstance(inputs, Mapping):
    return {name: tuple(array.shape[1:]) for name, array in inputs.items()}
  return tuple(inputs.shape[1:])


def _checked(split: str, arrays: Arrays, outputs: Outputs) -> Arrays:
  """Returns (inputs, labels[, weights]) as training reads them.

  Raises:
    ValueError: they have different lengths, or do not fit the outputs.
  """
  inputs, labels, weights = arrays if len(arrays) == 3 else (*arrays, None)
  if labels is None and split in ("train", "test"):
    raise ValueError(f"{split} must have labels: put inputs without labels into splits, for students with that split.")
  labels, weights = outputs.checked(split, labels, weights)
  lengths = {len(array) for array in tf.nest.flatten([inputs, [] if labels is None else labels])}
  if len(lengths) > 1 or lengths == {0}:
    raise ValueError(f"{split} must have as many inputs as labels; got {' and '.join(map(str, sorted(lengths)))}.")
  return (inputs, labels) if weights is None else (inputs, labels, weights)
