"""The examples of a sweep, as its networks read them."""

from tfkd import data

_EVALUATION_PIXELS = 500 * 32 * 32  # Of a batch; a training batch may hold more, and fits too.


class Examples:
  """A data set in memory, and the batches that a training asks of it.

  Args:
    training: `SweepConfig`.
    num_replicas: how many devices share a batch.

  Raises:
    ValueError: the data is damaged, or a batch does not fit its size.
    OSError: it is not there.
  """

  def __init__(self, training, num_replicas):
    self._training = training
    self._num_replicas = num_replicas
    self._options = {"image_size": training.image_size, "on_bad_image": training.on_bad_image}
    self.info = data.info(training.dataset, **self._options)
    self.train, self.test = self._load("train", limit=training.limit_train), self._load("test")
    """Images and labels of what students see, and of what they are judged by."""
    count = len(self.train[1])
    if training.batch_size > count:
      raise ValueError(f"--batch_size is {training.batch_size}, but there are only {count} training images.")
    if 0 < count % training.batch_size < num_replicas:
      # oneDNN's convolutions fail on no examples, and batch normalisation would learn NaN from them.
      raise ValueError(
        f"the last batch of an epoch has {count % training.batch_size} examples for {num_replicas} replicas: choose "
        "another --batch_size, or --limit_train."
      )
    if training.views is not None and not training.augment:
      raise ValueError(f"--views={training.views} is of random changes: --augment is needed.")

  @property
  def always_new(self):
    """Whether an image is never seen twice, so that nothing can be known of it before."""
    return bool(self._training.augment and self._training.views is None or self._training.mixup)

  @property
  def augmentation(self):
    """Options of `tfkd.data.Dataset.transforms`."""
    return {"augment": self._training.augment, "views": self._training.views}

  @property
  def has_distributions(self):
    """Whether labels of a training are distributions over classes."""
    return bool(self._training.label_smoothing or self._training.mixup)

  def batches(self, split, **options):
    """A split, whole and for evaluation: `tf.data` data set of (images, labels); of "train" what students see.

    Args:
      split: of the data set.
      **options: see `evaluation_batches`; without any, in order.
    """
    arrays = {"train": self.train, "test": self.test}.get(split) or self._load(split)
    return self.evaluation_batches(*arrays, **options)

  def evaluation_batches(self, inputs, labels, **options):
    """Batches as large as they may be, with an example for every replica in the last of them.

    Args:
      inputs, labels: of `tfkd.data.batches`.
      **options: `augmentation`, label_transforms, and options of `tfkd.data.batches`.
    """
    height, width, _ = self.info.image_shape
    size = min(max(self._training.batch_size, _EVALUATION_PIXELS // (height * width)), len(labels))
    while 0 < len(labels) % size < self._num_replicas:
      size -= 1
    return self._batches(inputs, labels, size, **options)

  def train_batches(self, inputs, seed, first_step, stride=1):
    """Batches of a training, without end.

    Args:
      inputs: the images of `train`, alone or in a tuple with what the teacher answered to them.
      seed: of their order and changes.
      first_step, stride: see `tfkd.data.batches`.
    """
    training = self._training
    label_transforms = self._one_hot(training.label_smoothing)
    if training.mixup:
      label_transforms.append(data.MixUp(training.mixup))
    return self._batches(
      inputs,
      self.train[1],
      training.batch_size,
      shuffle_seed=seed,
      first_step=first_step,
      stride=stride,
      label_transforms=label_transforms,
      **self.augmentation,
    )

  def test_batches(self, inputs):
    """The whole test set, with labels as the training's loss reads them; inputs as for `train_batches`."""
    return self.evaluation_batches(inputs, self.test[1], label_transforms=self._one_hot())

  def calibration_batches(self):
    """Training images in no order of classes, since some batches are all that is looked at."""
    return self._batches(*self.train, self._training.batch_size, shuffle_seed=0)

  def _load(self, split, **options):
    training = self._training
    return data.load_arrays(training.dataset, split, data_dir=training.data_dir, **options, **self._options)

  def _one_hot(self, smoothing=0.0):
    return [data.OneHot(len(self.info.classes), smoothing)] if self.has_distributions else []

  def _batches(self, inputs, labels, batch_size, *, augment=False, views=None, label_transforms=(), **options):
    transforms = [*self.info.transforms(augment, views), *label_transforms]
    return data.batches(inputs, labels, batch_size, scale_pixels=True, transforms=transforms, **options)
