"""The teacher, which continues from ImageNet, and the student."""

import hashlib
import json
import os

import tf_keras as keras
from absl import flags, logging

from experiments.transfer import signs
from tfkd import data, models, quantization
from tfkd.sweeps import ArrayData
from tfkd.training import fit, fit_head, make_optimizer

_HEAD_EPOCHS = 20
_HEAD_LEARNING_RATE = 3e-3
_BATCH_SIZE = 64
STUDENT = "mobilenetx0.25"


def teacher(source: ArrayData, directory: str) -> keras.Model:
  """Trains EfficientNet-Lite0 from its ImageNet weights, or reads it if that was done with the same settings.

  It reads images enlarged to twice their size. First the new last layer is trained alone, on features that are
  computed once; then the whole network, on augmented images.

  Args:
    source: the data set, with images in [0, 255].
    directory: for the trained network, and for the checkpoints of an interrupted training.

  Returns:
    A model from images in [0, 1] to logits.
  """
  given, side = flags.FLAGS, source.input_shape[0]
  network = f"efficientnet_lite0@{2 * side}"
  settings = {"network": network, "epochs": given.teacher_epochs, "learning_rate": given.teacher_learning_rate}
  digest = hashlib.sha256(json.dumps([settings, source.identity()], sort_keys=True).encode()).hexdigest()
  directory = os.path.join(directory, digest[:12])
  path = os.path.join(directory, "teacher.keras")
  if os.path.exists(path):
    return quantization.load(path)
  logging.info("training the teacher: %s", settings)
  keras.utils.set_random_seed(0)
  model = models.build(network, len(source.classes), source.input_shape, weights="imagenet")
  test = _batches(source, "test")
  head = os.path.join(directory, "head.keras")
  if os.path.exists(head):
    model = quantization.load(head)
  else:
    optimizer = make_optimizer("adam", _HEAD_LEARNING_RATE, _steps(source, _HEAD_EPOCHS))
    options = {"epochs": _HEAD_EPOCHS, "batch_size": _BATCH_SIZE, **_directories(directory, "head")}
    history, _ = fit_head(model, _batches(source, "train"), test, optimizer=optimizer, **options)
    logging.info("accuracy with a new last layer alone: %.4f", history["val_accuracy"][-1])
    quantization.save(model, head)
  optimizer = make_optimizer("adam", given.teacher_learning_rate, _steps(source, given.teacher_epochs))
  model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True), ["accuracy"])

  def train(first_step):
    return _batches(source, "train", augment=True, shuffle_seed=0, first_step=first_step)

  options = {"epochs": given.teacher_epochs, "steps_per_epoch": _steps(source, 1), **_directories(directory, "whole")}
  fit(model, train, test, checkpoint_minutes=given.checkpoint_minutes, **options)
  quantization.save(model, path)
  return model


def student(num_classes: int, input_shape: tuple[int, ...]) -> keras.Model:
  """Builds MobileNetV1 with a quarter of the channels, whose stem keeps the size of images up to 64 pixels."""
  return models.build(STUDENT, num_classes, input_shape)


def source() -> ArrayData:
  """Reads the data set of the flags."""
  return signs.read(flags.FLAGS.data_dir, flags.FLAGS.image_size)


def _batches(source, split, augment=False, **options):
  images, labels = source.arrays(split)
  transforms = source.transforms(augment)
  return data.batches(images, labels, _BATCH_SIZE, scale_pixels=True, transforms=transforms, **options)


def _steps(source, epochs):
  return epochs * -(-len(source.arrays("train")[1]) // _BATCH_SIZE)


def _directories(directory, stage):
  return {"log_dir": os.path.join(directory, "logs", stage), "checkpoint_dir": os.path.join(directory, stage)}
